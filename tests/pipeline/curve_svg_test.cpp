#include "compress/pipeline/curve_svg.h"

#include <gmock/gmock.h>

#include <cmath>

namespace attar {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(CurveSvg, LiesOnALogarithmicAxisWithItsMarksNamed) {
  const Curve curve{
      "KL", "bits", "nats", {{2, 1.0}, {3, 0.1}, {4, 0.01}}, {{3, 0.1, "W3 <g64>", true}}};
  const std::string picture = curve_svg(curve);
  EXPECT_EQ(picture.find("<svg"), 0u);
  // Three points on a straight line: equal steps across and down.
  double x[3], y[3];
  const std::size_t at = picture.find("points=\"") + 8;
  ASSERT_EQ(std::sscanf(picture.c_str() + at, "%lf,%lf %lf,%lf %lf,%lf", &x[0], &y[0], &x[1], &y[1],
                        &x[2], &y[2]),
            6);
  EXPECT_NEAR(x[2] - x[1], x[1] - x[0], 0.11);
  EXPECT_NEAR(y[2] - y[1], y[1] - y[0], 0.11);
  EXPECT_GT(y[1], y[0] + 10);
  EXPECT_THAT(picture, HasSubstr("W3 &lt;g64&gt;"));
  EXPECT_THAT(picture, Not(HasSubstr("<g64>")));
}

TEST(CurveSvg, LeavesOutWhatALogarithmDoesNotHave) {
  EXPECT_EQ(curve_svg({"none", "x", "y", {{1, 0}, {2, NAN}}, {}}), "");
  EXPECT_THAT(curve_svg({"one", "x", "y", {{1, -1}, {2, 0.5}}, {}}), Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace attar
