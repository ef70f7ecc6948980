#!/usr/bin/env python3
"""llama.cpp's half of tests/bench/speed.py: the protocol of speed_rounds.cpp.

    python3 tests/bench/llama_rounds.py MODEL.gguf THREADS

For a Python that has llama-cpp-python, compiled for this machine's processor
(CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python).
"""

import ctypes
import sys
import time

import llama_cpp

BATCH = 512


def open_context(path, threads):
    llama_cpp.llama_log_set(SILENT, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    options = llama_cpp.llama_model_default_params()
    options.use_mmap = False
    model = llama_cpp.llama_model_load_from_file(path.encode(), options)
    options = llama_cpp.llama_context_default_params()
    options.n_ctx = 1024
    options.n_batch = options.n_ubatch = BATCH
    options.n_threads = options.n_threads_batch = threads
    return model, llama_cpp.llama_init_from_model(model, options)


@llama_cpp.llama_log_callback
def SILENT(level, text, data):  # pylint: disable=unused-argument
    pass


def forget(context):
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)


def feed(context, ids):
    for first in range(0, len(ids), BATCH):
        piece = ids[first:first + BATCH]
        array = (llama_cpp.llama_token * len(piece))(*piece)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(piece))) != 0:
            raise RuntimeError("llama_decode failed")


def main():
    model, context = open_context(sys.argv[1], int(sys.argv[2]))
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    print("ready", llama_cpp.llama_model_size(model), flush=True)
    print(llama_cpp.llama_print_system_info().decode(), file=sys.stderr, flush=True)
    for line in sys.stdin:
        what, count = line.split()
        ids = [(i * 2654435761 >> 8) % vocabulary for i in range(1, int(count) + 1)]
        forget(context)
        if what == "decode":
            feed(context, ids[:1])
        since, processor_since = time.perf_counter(), time.process_time()
        if what == "prefill":
            feed(context, ids)
            llama_cpp.llama_get_logits_ith(context, -1)
        else:
            for token in ids:
                llama_cpp.llama_get_logits_ith(context, -1)
                feed(context, [token])
        print(time.perf_counter() - since, time.process_time() - processor_since, flush=True)


if __name__ == "__main__":
    main()
