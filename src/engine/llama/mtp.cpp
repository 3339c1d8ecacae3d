#include "mtp.h"
#include "guarded.h"

#include "llama-ext.h"

int mtp_show_states(llama_context * context, bool only_outputs, char ** out) {
    return guarded(out, [&] { llama_set_embeddings_nextn(context, true, only_outputs); return 0; });
}

const float * mtp_state(llama_context * context, int32_t row) {
    char * complaint = nullptr;
    const float * state = nullptr;
    guarded(&complaint, [&] { state = llama_get_embeddings_nextn_ith(context, row); return 0; });
    free(complaint);
    return state;
}

int mtp_decode(llama_context * context, llama_batch_ext * batch, const mtp_row * rows, int32_t count, const float * states,
               size_t width, char ** out) {
    return guarded(out, [&] {
        llama_batch_ext_clear(batch);
        for (int32_t i = 0; i < count; i++) {
            const mtp_row & row = rows[i];
            const int32_t at = llama_batch_ext_add_token(batch, row.sequence, row.token);
            const bool whole = at == i && llama_batch_ext_set_pos(batch, at, &row.position) &&
                llama_batch_ext_set_embd_token(batch, at, { states + i * width, 1, width }) &&
                llama_batch_ext_set_output_logits(batch, at, row.logits);
            if (!whole) { return -1; }
        }
        const int code = (int) llama_process(context, LLAMA_PROCESS_TYPE_DECODE, batch);
        llama_synchronize(context);
        return code;
    });
}
