#include "compress/linalg/gram.h"
