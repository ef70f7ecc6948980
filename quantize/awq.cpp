#include "quantize/awq.h"
