// Keeps vector code out of symbols that two instruction sets could share.
#pragma once

#define ATTAR_INLINE __attribute__((always_inline)) static inline
