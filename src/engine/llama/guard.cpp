#include "guard.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>

// How deep this thread is inside guarded calls: only there may an abort become an exception.
static thread_local int guarded_depth = 0;
static void (*tell_fatal)(const char *) = nullptr;

static char * copy(const char * text) {
    const size_t size = strlen(text) + 1;
    char * memory = (char *) malloc(size);
    if (memory) { memcpy(memory, text, size); }
    return memory;
}

static void on_abort(const char * message) {
    // Unwinds through ggml_abort, which is C but has unwind tables on x86-64 and aarch64.
    if (guarded_depth > 0) { throw std::runtime_error(message); }
    if (tell_fatal) { tell_fatal(message); }
}

template <typename Call> static int guarded(char ** out, Call && call) {
    struct Depth { Depth() { guarded_depth++; } ~Depth() { guarded_depth--; } } depth;
    *out = nullptr;
    try {
        return call();
    } catch (const std::exception & error) {
        *out = copy(error.what());
    } catch (...) {
        *out = copy("unknown C++ exception");
    }
    return GUARD_FAILED;
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
