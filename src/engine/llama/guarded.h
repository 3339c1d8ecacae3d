// Runs calls that may throw or abort: what they would end the process with comes back as a message.
#pragma once
#include <cstdlib>
#include <cstring>
#include <exception>

#define GUARD_FAILED (-100)

// How deep this thread is inside guarded calls: only there may an abort become an exception.
inline thread_local int guarded_depth = 0;

inline char * guarded_copy(const char * text) {
    const size_t size = strlen(text) + 1;
    char * memory = (char *) malloc(size);
    if (memory) { memcpy(memory, text, size); }
    return memory;
}

template <typename Call> int guarded(char ** out, Call && call) {
    struct Depth { Depth() { guarded_depth++; } ~Depth() { guarded_depth--; } } depth;
    *out = nullptr;
    try {
        return call();
    } catch (const std::exception & error) {
        *out = guarded_copy(error.what());
    } catch (...) {
        *out = guarded_copy("unknown C++ exception");
    }
    return GUARD_FAILED;
}
