#include "quantize/grid.h"
