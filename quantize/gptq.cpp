#include "quantize/gptq.h"
