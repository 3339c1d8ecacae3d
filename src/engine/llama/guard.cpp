#include "guard.h"
#include "guarded.h"

#include "ggml-backend.h"
#include "llama-context.h"
#include "llama-ext.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"
#include "llama-model.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <regex>
#include <stdexcept>
#include <utility>
#include <vector>

static void (*tell_fatal)(const char *) = nullptr;

static void on_abort(const char * message) {
    // Unwinds through ggml_abort, which is C but has unwind tables on x86-64 and aarch64.
    if (guarded_depth > 0) { throw std::runtime_error(message); }
    if (tell_fatal) { tell_fatal(message); }
}

void guard_free(char * text) { free(text); }

void guard_install(void (*fatal)(const char *)) {
    tell_fatal = fatal;
    ggml_set_abort_callback(on_abort);
}

int guard_load(const char * path, llama_model_params params, llama_model ** model, char ** out) {
    *model = nullptr;
    return guarded(out, [&] { *model = llama_model_load_from_file(path, params); return *model ? 0 : -1; });
}

int guard_context(llama_model * model, llama_context_params params, llama_context ** context, char ** out) {
    *context = nullptr;
    return guarded(out, [&] { *context = llama_init_from_model(model, params); return *context ? 0 : -1; });
}

int guard_decode(llama_context * context, llama_batch batch, char ** out) {
    return guarded(out, [&] {
        const int code = (int) llama_decode(context, batch);
        llama_synchronize(context);
        return code;
    });
}

int guard_encode(llama_context * context, llama_batch batch, char ** out) {
    return guarded(out, [&] {
        const llama_model * model = llama_get_model(context);
        const bool encodes = llama_model_has_encoder(model) && !llama_model_has_decoder(model);
        const int code = (int) (encodes ? llama_encode(context, batch) : llama_decode(context, batch));
        llama_synchronize(context);
        return code;
    });
}

int guard_tokenize(const llama_vocab * vocab, const char * text, int32_t length, llama_token * tokens, int32_t room,
                   bool add_special, bool parse_special, int32_t * count, char ** out) {
    *count = 0;
    return guarded(out, [&] {
        *count = llama_tokenize(vocab, text, length, tokens, room, add_special, parse_special);
        return 0;
    });
}

int guard_apply(llama_sampler * sampler, llama_token_data_array * candidates, char ** out) {
    return guarded(out, [&] { llama_sampler_apply(sampler, candidates); return 0; });
}

int guard_accept(llama_sampler * sampler, llama_token token, char ** out) {
    return guarded(out, [&] { llama_sampler_accept(sampler, token); return 0; });
}

int guard_grammar(const llama_vocab * vocab, const char * gbnf, bool lazy, const char ** patterns, size_t n_patterns,
                  const llama_token * tokens, size_t n_tokens, llama_sampler ** sampler, char ** out) {
    *sampler = nullptr;
    return guarded(out, [&] {
        *sampler = lazy
            ? llama_sampler_init_grammar_lazy_patterns(vocab, gbnf, "root", patterns, n_patterns, tokens, n_tokens)
            : llama_sampler_init_grammar(vocab, gbnf, "root");
        return *sampler ? 0 : -1;
    });
}

int guard_dry(const llama_vocab * vocab, float multiplier, float base, int32_t allowed_length, int32_t last_n,
              const char ** breakers, size_t n_breakers, llama_sampler ** sampler, char ** out) {
    *sampler = nullptr;
    return guarded(out, [&] {
        *sampler = llama_sampler_init_dry(vocab, multiplier, base, allowed_length, last_n, breakers, n_breakers);
        return *sampler ? 0 : -1;
    });
}

int guard_adapter(llama_model * model, const char * path, llama_adapter_lora ** adapter, char ** out) {
    *adapter = nullptr;
    return guarded(out, [&] { *adapter = llama_adapter_lora_init(model, path); return *adapter ? 0 : -1; });
}

static const char * device_name(ggml_backend_buffer_type_t buft) {
    ggml_backend_dev_t device = ggml_backend_buft_get_device(buft);
    return device ? ggml_backend_dev_name(device) : "CPU"; // the CPU's own buffers name no device
}

int guard_buffers(const llama_context * context, guard_buffer * buffers, size_t room, size_t * count, char ** out) {
    *count = 0;
    return guarded(out, [&] {
        for (const auto & [buft, memory] : llama_get_memory_breakdown(context)) {
            if (*count < room) {
                buffers[*count] = { device_name(buft), ggml_backend_buft_name(buft), ggml_backend_buft_is_host(buft),
                                    memory.model, memory.context, memory.compute };
            }
            (*count)++;
        }
        return 0;
    });
}

int guard_save(llama_context * context, llama_seq_id sequence, bool rest, uint8_t * bytes, size_t room, size_t * size, char ** out) {
    *size = 0;
    return guarded(out, [&] {
        const llama_state_seq_flags flags = rest ? LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY : LLAMA_STATE_SEQ_FLAGS_NONE;
        *size = room == 0 ? llama_state_seq_get_size_ext(context, sequence, flags)
                          : llama_state_seq_get_data_ext(context, bytes, room, sequence, flags);
        return *size > 0 ? 0 : 1;
    });
}

int guard_restore(llama_context * context, llama_seq_id sequence, bool rest, const uint8_t * bytes, size_t size, char ** out) {
    return guarded(out, [&] {
        const llama_state_seq_flags flags = rest ? LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY : LLAMA_STATE_SEQ_FLAGS_NONE;
        return llama_state_seq_set_data_ext(context, bytes, size, sequence, flags) > 0 ? 0 : 1;
    });
}

int guard_attention(llama_context * context, uint32_t tokens, uint32_t sequences, bool * fused, const char ** runs,
                    const char ** lies, char ** out) {
    *fused = false;
    *runs = *lies = nullptr;
    return guarded(out, [&] {
        auto * memory = context->get_memory();
        auto full = memory ? memory->init_full() : nullptr; // some models have no cache
        const bool split_only = true; // allocates nothing
        // Pooling wants every token of whole sequences.
        const bool pools = context->get_cparams().embeddings;
        if (pools) { tokens = (tokens + sequences - 1) / sequences * sequences; }
        ggml_cgraph * graph = context->graph_reserve(tokens, sequences, pools ? tokens : sequences, full.get(), split_only);
        for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
            const ggml_tensor * node = ggml_graph_node(graph, i);
            if (node->op != GGML_OP_FLASH_ATTN_EXT) { continue; }
            *fused = true;
            const ggml_tensor * keys = node->src[1];
            while (keys->view_src) { keys = keys->view_src; }
            ggml_backend_t backend = ggml_backend_sched_get_tensor_backend(context->get_sched(), const_cast<ggml_tensor *>(node));
            if (!keys->buffer || !backend) { continue; }
            const char * where = device_name(ggml_backend_buffer_get_type(keys->buffer));
            const char * computed = ggml_backend_dev_name(ggml_backend_get_device(backend));
            // A cache in host memory may be read from a GPU; the other way round every step copies the cache.
            if (strcmp(where, computed) != 0 && !ggml_backend_buffer_is_host(keys->buffer)) { *runs = computed; *lies = where; }
        }
        return 0;
    });
}

// Takes cells for positions from `first` to `last`, as many as the cache has left.
static void take_cells(llama_kv_cache * cache, uint32_t positions, llama_seq_id sequence, llama_pos first, llama_pos last) {
    const uint32_t room = cache->get_size() - 1; // position 0 holds one
    const uint32_t count = std::min<uint32_t>(last - first + 1, room);
    if (count == 0) { return; }
    llama_batch_allocr allocator(positions);
    llama_ubatch ubatch = allocator.ubatch_reserve(count, 1);
    ubatch.seq_id_unq[0] = sequence;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t p = 0; p < positions; p++) { ubatch.pos[i + p * count] = last - (llama_pos) (count - 1 - i); }
        ubatch.n_seq_id[i] = 1;
        ubatch.seq_id[i] = &sequence;
    }
    const auto slot = cache->find_slot(ubatch, false);
    if (slot.empty()) { throw std::runtime_error("the cache has too few free cells"); }
    cache->apply_ubatch(slot, ubatch);
}

int guard_fill(llama_context * context, llama_seq_id sequence, llama_pos last, bool * done, char ** out) {
    *done = false;
    return guarded(out, [&] {
        const uint32_t positions = context->get_model().hparams.n_pos_per_embd();
        auto * memory = context->get_memory();
        std::vector<llama_kv_cache *> caches;
        llama_memory_recurrent * states = nullptr;
        const auto both = [&](llama_kv_cache_iswa * cache) { caches = { cache->get_base(), cache->get_swa() }; };
        if (auto * cache = dynamic_cast<llama_kv_cache *>(memory)) {
            caches = { cache };
        } else if (auto * windows = dynamic_cast<llama_kv_cache_iswa *>(memory)) {
            both(windows);
        } else if (auto * hybrid = dynamic_cast<llama_memory_hybrid *>(memory)) {
            caches = { hybrid->get_mem_attn() };
            states = hybrid->get_mem_recr();
        } else if (auto * hybrid = dynamic_cast<llama_memory_hybrid_iswa *>(memory)) {
            both(hybrid->get_mem_attn());
            states = hybrid->get_mem_recr();
        } else {
            return 0;
        }
        for (auto * cache : caches) { take_cells(cache, positions, sequence, 1, last); }
        if (states) {
            for (auto & cell : states->cells) {
                if (cell.has_seq_id(sequence)) { cell.pos = last; }
            }
        }
        *done = true;
        return 0;
    });
}

// Whole pages of host memory that hold weights, neighbours joined.
static std::vector<std::pair<char *, size_t>> host_pages(const llama_model * model) {
    const uintptr_t page = 4096;
    const size_t gap = 1 << 20;
    std::vector<std::pair<uintptr_t, uintptr_t>> ranges;
    for (const auto & [_, tensor] : model->tensors_by_name) {
        if (!tensor->buffer || ggml_backend_buft_get_device(ggml_backend_buffer_get_type(tensor->buffer)) != nullptr ||
            !ggml_backend_buffer_is_host(tensor->buffer) || strncmp(tensor->name, "blk.", 4) != 0 || ggml_n_dims(tensor) < 2) {
            continue; // only the CPU's plain buffers, and of them what large batches send to a GPU
        }
        const auto from = (uintptr_t) tensor->data;
        ranges.emplace_back(from / page * page, (from + ggml_nbytes(tensor) + page - 1) / page * page);
    }
    std::sort(ranges.begin(), ranges.end());
    std::vector<std::pair<char *, size_t>> joined;
    for (const auto & [from, to] : ranges) {
        if (!joined.empty()) {
            auto & [start, size] = joined.back();
            const auto end = (uintptr_t) start + size;
            if (from <= end + gap) {
                size = std::max(end, to) - (uintptr_t) start;
                continue;
            }
        }
        joined.emplace_back((char *) from, to - from);
    }
    return joined;
}

static void * find_in_backends(const char * function) {
    for (size_t i = 0; i < ggml_backend_reg_count(); i++) {
        if (void * found = ggml_backend_reg_get_proc_address(ggml_backend_reg_get(i), function)) { return found; }
    }
    return nullptr;
}

int guard_pin(const llama_model * model, size_t * bytes, char ** out) {
    *bytes = 0;
    return guarded(out, [&] {
        const auto pin = (bool (*)(void *, size_t)) find_in_backends("ggml_backend_register_host_buffer");
        if (!pin) { return 0; }
        for (const auto & [start, size] : host_pages(model)) {
            if (pin(start, size)) { *bytes += size; }
        }
        return 0;
    });
}

int guard_unpin(const llama_model * model, char ** out) {
    return guarded(out, [&] {
        const auto unpin = (void (*)(void *)) find_in_backends("ggml_backend_unregister_host_buffer");
        if (!unpin) { return 0; }
        for (const auto & [start, _] : host_pages(model)) { unpin(start); }
        return 0;
    });
}

int guard_search(const char * pattern, const char * const * names, size_t n_names, bool * found, char ** out) {
    return guarded(out, [&] {
        const std::regex regex(pattern);
        for (size_t i = 0; i < n_names; i++) { found[i] = std::regex_search(names[i], regex); }
        return 0;
    });
}
