#include "compress/pipeline/curve_svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace attar {

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

namespace {

constexpr double kLeft = 70, kTop = 30, kWidth = 640, kHeight = 360;

std::string printed(const char* pattern, auto... values) {
  std::array<char, 256> text;
  std::snprintf(text.data(), text.size(), pattern, values...);
  return text.data();
}

bool drawable(const Curve::Point& point) {
  return std::isfinite(point.x) && std::isfinite(point.y) && point.y > 0;
}

// From values to places on the page.
struct Axes {
  double x0, x1, y0, y1;  // y as powers of 10

  double across(double x) const { return kLeft + kWidth * (x - x0) / (x1 - x0); }
  double down(double y) const { return kTop + kHeight * (y1 - std::log10(y)) / (y1 - y0); }
};

Axes axes_of(const std::vector<Curve::Point>& points) {
  Axes axes{INFINITY, -INFINITY, INFINITY, -INFINITY};
  for (const Curve::Point& point : points) {
    axes.x0 = std::min(axes.x0, std::floor(2 * point.x) / 2);
    axes.x1 = std::max(axes.x1, std::floor(2 * point.x) / 2 + 0.5);
    axes.y0 = std::min(axes.y0, std::floor(std::log10(point.y)));
    axes.y1 = std::max(axes.y1, std::floor(std::log10(point.y)) + 1);
  }
  return axes;
}

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  return printed("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor) + escaped(text) +
         "</text>\n";
}

std::string line_to(double x0, double y0, double x1, double y1) {
  return printed("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", x0,
                 y0, x1, y1);
}

std::string drawn(const Axes& axes, const Curve& curve) {
  std::string lines;
  const double step = std::max(0.5, std::ceil((axes.x1 - axes.x0) / 5) / 2);
  for (double x = axes.x0; x <= axes.x1; x += step) {
    lines += line_to(axes.across(x), kTop, axes.across(x), kTop + kHeight);
    lines += text_at(axes.across(x), kTop + kHeight + 16, "middle", printed("%g", x));
  }
  for (double power = axes.y0; power <= axes.y1; ++power) {
    const double y = axes.down(std::pow(10.0, power));
    lines += line_to(kLeft, y, kLeft + kWidth, y);
    lines += text_at(kLeft - 6, y + 4, "end", printed("1e%g", power));
  }
  return lines + text_at(kLeft, kTop - 12, "start", curve.y) +
         text_at(kLeft + kWidth, kTop + kHeight + 32, "end", curve.x);
}

}  // namespace

std::string curve_svg(const Curve& curve) {
  std::vector<Curve::Point> all = curve.line;
  all.insert(all.end(), curve.marks.begin(), curve.marks.end());
  std::erase_if(all, [](const Curve::Point& point) { return !drawable(point); });
  if (all.empty()) return "";
  const Axes axes = axes_of(all);
  std::string path;
  for (const Curve::Point& point : curve.line) {
    if (drawable(point)) path += printed("%.1f,%.1f ", axes.across(point.x), axes.down(point.y));
  }
  std::string page = printed("<svg viewBox=\"0 0 %.0f %.0f\" width=\"100%%\" font-size=\"11\">\n",
                             kLeft + kWidth + 120, kTop + kHeight + 40) +
                     drawn(axes, curve) +
                     "<polyline fill=\"none\" stroke=\"#246\" stroke-width=\"2\" points=\"" + path +
                     "\"/>\n";
  for (const Curve::Point& mark : curve.marks) {
    if (!drawable(mark)) continue;
    const double x = axes.across(mark.x), y = axes.down(mark.y);
    page += printed("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" stroke=\"#b40\" fill=\"%s\"/>\n", x, y,
                    mark.filled ? "#b40" : "#fff");
    page += text_at(x + 7, y + 4, "start", mark.name);
  }
  return page + "</svg>\n";
}

}  // namespace attar
