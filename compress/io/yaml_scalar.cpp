#include "compress/io/yaml_scalar.h"

#include <charconv>
#include <cstdint>
#include <string>
#include <system_error>

namespace attar::io {
namespace {

constexpr std::string_view kDecimal = "0123456789";

bool all_of(std::string_view text, std::string_view digits) {
  return !text.empty() && text.find_first_not_of(digits) == text.npos;
}

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  for (const std::string_view word : words) {
    if (text == word) return true;
  }
  return false;
}

// [0-9]+ ( . [0-9]* )?  or  . [0-9]+ , then ( [eE] [-+]? [0-9]+ )?
bool looks_like_float(std::string_view text) {
  const std::size_t exponent = text.find_first_of("eE");
  if (exponent != text.npos) {
    std::string_view power = text.substr(exponent + 1);
    if (!power.empty() && (power[0] == '-' || power[0] == '+')) power.remove_prefix(1);
    if (!all_of(power, kDecimal)) return false;
    text = text.substr(0, exponent);
  }
  const std::size_t point = text.find('.');
  if (point == text.npos) return all_of(text, kDecimal);
  const std::string_view whole = text.substr(0, point);
  const std::string_view fraction = text.substr(point + 1);
  if (whole.empty()) return all_of(fraction, kDecimal);
  return all_of(whole, kDecimal) && (fraction.empty() || all_of(fraction, kDecimal));
}

YamlScalar integer(std::string_view digits, int base, bool negative) {
  std::uint64_t magnitude = 0;
  const auto end = digits.data() + digits.size();
  const bool fits = std::from_chars(digits.data(), end, magnitude, base).ec == std::errc() &&
                    (!negative || magnitude <= std::uint64_t{1} << 63);
  if (!fits) return {nullptr, "an integer beyond 64 bits"};
  if (!negative) return {magnitude};
  return {static_cast<std::int64_t>(0 - magnitude)};
}

YamlScalar real(std::string_view text, bool negative) {
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc()) return {nullptr, "a number beyond the range of a double"};
  return {negative ? -value : value};
}

}  // namespace

YamlScalar resolve_plain_scalar(std::string_view text) {
  if (one_of(text, {"", "~", "null", "Null", "NULL"})) return {nullptr};
  if (one_of(text, {"true", "True", "TRUE"})) return {true};
  if (one_of(text, {"false", "False", "FALSE"})) return {false};
  if (text.starts_with("0o") && all_of(text.substr(2), "01234567")) {
    return integer(text.substr(2), 8, false);
  }
  if (text.starts_with("0x") && all_of(text.substr(2), "0123456789abcdefABCDEF")) {
    return integer(text.substr(2), 16, false);
  }
  const bool negative = text[0] == '-';
  const std::string_view rest = text.substr(negative || text[0] == '+' ? 1 : 0);
  if (all_of(rest, kDecimal)) return integer(rest, 10, negative);
  if (looks_like_float(rest)) return real(rest, negative);
  if (one_of(rest, {".inf", ".Inf", ".INF"}) || one_of(text, {".nan", ".NaN", ".NAN"})) {
    return {nullptr, "no finite number"};
  }
  return {std::string(text)};
}

}  // namespace attar::io
