#include "compress/linalg/cholesky.h"
