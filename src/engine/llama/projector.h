// The part of llama.cpp that reads images and sounds (libmtmd), made safe for a caller that can neither catch nor abort.
//
// Functions returning int: as in guard.h. One thread at a time.
#pragma once
#include "ggml-backend.h"
#include "llama.h"
#include "mtmd.h"
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif

// What a projector is.
struct projector_facts {
    bool sees;
    bool grid;           // places images in two dimensions (M-RoPE)
    int hears;           // samples a second of the sounds it takes; not above 0: it takes none
};

// device: null for the CPU.
int projector_open(const char * path, const struct llama_model * model, ggml_backend_dev_t device, int threads,
                   mtmd_context ** projector, struct projector_facts * facts, char ** out);
void projector_free(mtmd_context * projector);

// Divides a picture (RGB, 3 bytes a pixel) into what the model takes: texts and images in turn.
int projector_divide_picture(const mtmd_context * projector, uint32_t width, uint32_t height, const uint8_t * rgb,
                             mtmd_input_chunks ** chunks, char ** out);
// The same for a sound of one channel.
int projector_divide_sound(const mtmd_context * projector, size_t count, const float * samples,
                           mtmd_input_chunks ** chunks, char ** out);
void projector_forget(mtmd_input_chunks * chunks);

// One of them. Of a text `tokens` points to its tokens. Of an image or a sound `tokens` is null; `columns` is 0 if its rows
// lie one after the other and else the width of its grid; `whole`: each row must see all others.
struct projector_chunk {
    const llama_token * tokens;
    size_t count;
    uint32_t columns;
    bool whole;
};
// *more: false if there is no chunk at `at`.
int projector_chunk_at(const mtmd_context * projector, const mtmd_input_chunks * chunks, size_t at,
                       struct projector_chunk * chunk, bool * more, char ** out);
// Computes the image or sound at `at`: `count` numbers.
int projector_encode(mtmd_context * projector, const mtmd_input_chunks * chunks, size_t at, float * numbers, size_t count,
                     char ** out);

// What a projector would take, in bytes: on the device and in host memory.
int projector_gauge(const char * path, ggml_backend_dev_t device, int threads, size_t * on_device, size_t * on_host, char ** out);

#ifdef __cplusplus
}
#endif
