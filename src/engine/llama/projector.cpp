#include "projector.h"
#include "guarded.h"

#include <algorithm>
#include <stdexcept>
#include <string>

static mtmd_context_params params(ggml_backend_dev_t device, int threads) {
    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = device != nullptr;
    params.device = device;
    params.n_threads = threads;
    params.print_timings = false;
    return params;
}

int projector_open(const char * path, const llama_model * model, ggml_backend_dev_t device, int threads,
                   mtmd_context ** projector, projector_facts * facts, char ** out) {
    *projector = nullptr;
    *facts = {};
    return guarded(out, [&] {
        *projector = mtmd_init_from_file(path, model, params(device, threads));
        if (!*projector) { return -1; }
        *facts = { mtmd_support_vision(*projector), mtmd_decode_use_mrope(*projector), mtmd_get_audio_sample_rate(*projector) };
        return 0;
    });
}

void projector_free(mtmd_context * projector) { mtmd_free(projector); }

// Takes the medium over.
static int divide(const mtmd_context * projector, mtmd_bitmap * medium, mtmd_input_chunks ** chunks) {
    mtmd::bitmap owned(medium);
    mtmd::input_chunks divided(mtmd_input_chunks_init());
    const mtmd_bitmap * media[] = { medium };
    const char * marker = mtmd_get_marker(projector);
    const mtmd_input_text text = { marker, strlen(marker), /* add_special */ false, /* parse_special */ true };
    const int code = mtmd_tokenize(projector, divided.ptr.get(), &text, media, 1);
    if (code == 0) { *chunks = divided.ptr.release(); }
    return code;
}

int projector_divide_picture(const mtmd_context * projector, uint32_t width, uint32_t height, const uint8_t * rgb,
                             mtmd_input_chunks ** chunks, char ** out) {
    *chunks = nullptr;
    return guarded(out, [&] { return divide(projector, mtmd_bitmap_init(width, height, rgb), chunks); });
}

int projector_divide_sound(const mtmd_context * projector, size_t count, const float * samples, mtmd_input_chunks ** chunks,
                           char ** out) {
    *chunks = nullptr;
    return guarded(out, [&] { return divide(projector, mtmd_bitmap_init_from_audio(count, samples), chunks); });
}

void projector_forget(mtmd_input_chunks * chunks) { mtmd_input_chunks_free(chunks); }

// The width of the image's grid, 0 without one. Throws if it lies in another way.
static uint32_t columns_of(const mtmd_context * projector, const mtmd_input_chunk * chunk, size_t count) {
    if (!mtmd_decode_use_mrope(projector)) { return 0; }
    const mtmd_image_tokens * image = mtmd_input_chunk_get_tokens_image(chunk);
    size_t columns = 0;
    while (columns < count && mtmd_image_tokens_get_decoder_pos(image, 0, columns).y == 0) { columns++; }
    size_t longest = 0;
    for (size_t i = 0; i < count; i++) {
        const mtmd_decoder_pos at = mtmd_image_tokens_get_decoder_pos(image, 0, i);
        if (at.t != 0 || at.x != i % columns || at.y != i / columns || at.z != 0) {
            throw std::runtime_error("the projector places images in a way that is not supported");
        }
        longest = std::max<size_t>(longest, std::max(at.x, at.y) + 1);
    }
    if ((size_t) mtmd_input_chunk_get_n_pos(chunk) != longest) {
        throw std::runtime_error("the projector places what follows an image in a way that is not supported");
    }
    return (uint32_t) columns;
}

int projector_chunk_at(const mtmd_context * projector, const mtmd_input_chunks * chunks, size_t at,
                       projector_chunk * found, bool * more, char ** out) {
    *found = {};
    *more = at < mtmd_input_chunks_size(chunks);
    if (!*more) { *out = nullptr; return 0; }
    return guarded(out, [&] {
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(chunks, at);
        found->count = mtmd_input_chunk_get_n_tokens(chunk);
        switch (mtmd_input_chunk_get_type(chunk)) {
            case MTMD_INPUT_CHUNK_TYPE_TEXT:
                found->tokens = mtmd_input_chunk_get_tokens_text(chunk, &found->count);
                break;
            case MTMD_INPUT_CHUNK_TYPE_IMAGE:
                found->columns = columns_of(projector, chunk, found->count);
                found->whole = mtmd_decode_use_non_causal(projector, chunk);
                break;
            case MTMD_INPUT_CHUNK_TYPE_AUDIO:
                found->whole = mtmd_decode_use_non_causal(projector, chunk);
                break;
            default:
                throw std::runtime_error("the projector made something else than text, images and sounds");
        }
        return 0;
    });
}

int projector_encode(mtmd_context * projector, const mtmd_input_chunks * chunks, size_t at, float * numbers, size_t count,
                     char ** out) {
    return guarded(out, [&] {
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(chunks, at);
        const int code = mtmd_encode_chunk(projector, chunk);
        if (code == 0) { std::copy_n(mtmd_get_output_embd(projector), count, numbers); }
        return code;
    });
}

int projector_gauge(const char * path, ggml_backend_dev_t device, int threads, size_t * on_device, size_t * on_host, char ** out) {
    *on_device = *on_host = 0;
    return guarded(out, [&] {
        const mtmd_memory_usage usage = mtmd_get_memory_usage(path, params(device, threads));
        for (const auto & [where, bytes] : usage.backend_mem_usage) {
            *(device && where == device ? on_device : on_host) += bytes;
        }
        return usage.backend_mem_usage.empty() ? -1 : 0;
    });
}
