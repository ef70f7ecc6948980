// Curves as pictures, without a drawing program.
#pragma once

#include <string>

#include "compress/core/pass.h"

namespace attar {

// Text between tags.
std::string escaped(const std::string& text);

// An <svg> element: x linear, y logarithmic, marks with their names. Points whose y is not positive
// and finite are left out; empty when none is left.
std::string curve_svg(const Curve& curve);

}  // namespace attar
