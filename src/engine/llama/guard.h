// Calls into llama.cpp that may throw or abort, made safe for a caller that can do neither.
//
// Functions returning int: 0 = ok (or llama.cpp's own code); GUARD_FAILED = a C++ exception or an abort was
// caught, *out = its message. *out must be freed with guard_free. After GUARD_FAILED from guard_decode the
// context must be thrown away.
#pragma once
#include "llama.h"
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif

#define GUARD_FAILED (-100)

void guard_free(char * text);
// fatal: told when llama.cpp aborts on a thread that is not inside a guarded call; it must not return.
void guard_install(void (*fatal)(const char * message));

int guard_load(const char * path, struct llama_model_params params, struct llama_model ** model, char ** out);
int guard_context(struct llama_model * model, struct llama_context_params params, struct llama_context ** context, char ** out);
int guard_decode(struct llama_context * context, struct llama_batch batch, char ** out);
int guard_tokenize(const struct llama_vocab * vocab, const char * text, int32_t length, llama_token * tokens, int32_t room,
                   bool add_special, bool parse_special, int32_t * count, char ** out);
int guard_apply(struct llama_sampler * sampler, llama_token_data_array * candidates, char ** out);
int guard_accept(struct llama_sampler * sampler, llama_token token, char ** out);
// lazy: the grammar waits for one of the patterns (regular expressions) or tokens.
int guard_grammar(const struct llama_vocab * vocab, const char * gbnf, bool lazy, const char ** patterns, size_t n_patterns,
                  const llama_token * tokens, size_t n_tokens, struct llama_sampler ** sampler, char ** out);
int guard_dry(const struct llama_vocab * vocab, float multiplier, float base, int32_t allowed_length, int32_t last_n,
              const char ** breakers, size_t n_breakers, struct llama_sampler ** sampler, char ** out);

#ifdef __cplusplus
}
#endif
