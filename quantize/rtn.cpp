#include "quantize/rtn.h"
