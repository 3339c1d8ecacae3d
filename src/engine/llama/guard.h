// Calls into llama.cpp that may throw or abort, made safe for a caller that can do neither.
//
// Functions returning int: 0 = ok (or llama.cpp's own code); GUARD_FAILED (guarded.h) = a C++ exception or an abort was
// caught, *out = its message. *out must be freed with guard_free. After GUARD_FAILED from guard_decode the
// context must be thrown away.
#pragma once
#include "llama.h"
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif

void guard_free(char * text);
// fatal: told when llama.cpp aborts on a thread that is not inside a guarded call; it must not return.
void guard_install(void (*fatal)(const char * message));

int guard_load(const char * path, struct llama_model_params params, struct llama_model ** model, char ** out);
int guard_context(struct llama_model * model, struct llama_context_params params, struct llama_context ** context, char ** out);
int guard_decode(struct llama_context * context, struct llama_batch batch, char ** out);
// As guard_decode; models that have only an encoder use that.
int guard_encode(struct llama_context * context, struct llama_batch batch, char ** out);
int guard_tokenize(const struct llama_vocab * vocab, const char * text, int32_t length, llama_token * tokens, int32_t room,
                   bool add_special, bool parse_special, int32_t * count, char ** out);
int guard_apply(struct llama_sampler * sampler, llama_token_data_array * candidates, char ** out);
int guard_accept(struct llama_sampler * sampler, llama_token token, char ** out);
// lazy: the grammar waits for one of the patterns (regular expressions) or tokens.
int guard_grammar(const struct llama_vocab * vocab, const char * gbnf, bool lazy, const char ** patterns, size_t n_patterns,
                  const llama_token * tokens, size_t n_tokens, struct llama_sampler ** sampler, char ** out);
int guard_dry(const struct llama_vocab * vocab, float multiplier, float base, int32_t allowed_length, int32_t last_n,
              const char ** breakers, size_t n_breakers, struct llama_sampler ** sampler, char ** out);

// Loads a LoRA adapter; to be freed before its model. -1: it is not one, or not of this model.
int guard_adapter(struct llama_model * model, const char * path, struct llama_adapter_lora ** adapter, char ** out);

// Memory of one kind of buffer. The names live as long as the process.
struct guard_buffer {
    const char * device;    // name of the device it belongs to
    const char * name;
    bool host;              // lies in host memory
    size_t model, context, compute;
};
// Fills at most `room` entries; *count is how many there are. Of a model loaded with no_alloc: what they would take.
int guard_buffers(const struct llama_context * context, struct guard_buffer * buffers, size_t room, size_t * count, char ** out);

// A sequence's state as bytes: all of it, or (rest) only what cutting it does not bring back. *size: how many there are;
// they are written if the room is large enough.
int guard_save(struct llama_context * context, llama_seq_id sequence, bool rest, uint8_t * bytes, size_t room, size_t * size, char ** out);
// Puts a saved state in place of the sequence's own. 1: it was not taken.
int guard_restore(struct llama_context * context, llama_seq_id sequence, bool rest, const uint8_t * bytes, size_t size, char ** out);

// Looks where the attention of a step of `tokens` tokens of all `sequences` would run. *fused: whether it is flash attention.
// Of a fused attention that runs elsewhere than its KV cache lies: the two devices' names, else null.
int guard_attention(struct llama_context * context, uint32_t tokens, uint32_t sequences, bool * fused, const char ** runs, const char ** lies, char ** out);

// Makes a sequence that holds position 0 look as if it held positions 0 to `last`: its cells are taken, their contents
// whatever lies there. *done: false for kinds of memory that this does not know, which are left as they were.
int guard_fill(struct llama_context * context, llama_seq_id sequence, llama_pos last, bool * done, char ** out);

// Locks the layers' weights that lie in host memory for direct access by GPUs (needs GGML_CUDA_REGISTER_HOST in the
// environment). *bytes: how much was locked; 0 where no backend can. To be undone before the model is freed.
int guard_pin(const struct llama_model * model, size_t * bytes, char ** out);
int guard_unpin(const struct llama_model * model, char ** out);

// Which of the names llama.cpp's own regular expressions find the pattern in.
int guard_search(const char * pattern, const char * const * names, size_t n_names, bool * found, char ** out);

#ifdef __cplusplus
}
#endif
