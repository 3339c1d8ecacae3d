// Prediction layers (MTP) of a model as a context of their own, fed with the hidden states of the one that they guess for.
//
// Functions returning int: 0 = ok (or llama.cpp's own code); GUARD_FAILED (guarded.h) = a C++ exception or an abort was
// caught, *out = its message, to be freed with guard_free.
#pragma once
#include "llama.h"
#ifdef __cplusplus
extern "C" {
#endif

// Has a context hand out hidden states from now on: of every row that it computes, or only of those that ask for logits.
int mtp_show_states(struct llama_context * context, bool only_outputs, char ** out);
// The hidden state of a row of the latest batch, valid until the next one; null: there is none.
const float * mtp_state(struct llama_context * context, int32_t row);

struct mtp_row {
    llama_token token;
    llama_pos position;
    llama_seq_id sequence;
    bool logits;
};
// Computes rows, each a token with the hidden state of the token before it: `width` numbers of `states`, row by row.
// `batch` is one of the context's own.
int mtp_decode(struct llama_context * context, struct llama_batch_ext * batch, const struct mtp_row * rows, int32_t count,
               const float * states, size_t width, char ** out);

#ifdef __cplusplus
}
#endif
