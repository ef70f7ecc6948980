#include "compress/io/json.h"

#include <iterator>
#include <string>
#include <utility>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "compress/io/json_builder.h"

namespace attar::io {
namespace {

using nlohmann::json;

// Characters of a text; tells how many were taken, since SAX events come without a position.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, std::size_t* taken) : at_(at), taken_(taken) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    ++*taken_;
    return *this;
  }
  CountingIterator operator++(int) { return std::exchange(*this, ++CountingIterator(*this)); }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  std::size_t* taken_;
};

// Receives the events of nlohmann's parser (which itself keeps no call stack per level).
class Receiver : public nlohmann::json_sax<json> {
 public:
  Receiver(const TextLimits& limits, std::string_view where, const std::size_t& taken)
      : builder_(limits), where_(where), taken_(taken) {}

  bool null() override { return check(builder_.value(nullptr)); }
  bool boolean(bool value) override { return check(builder_.value(value)); }
  bool number_integer(number_integer_t value) override { return check(builder_.value(value)); }
  bool number_unsigned(number_unsigned_t value) override { return check(builder_.value(value)); }
  bool number_float(number_float_t value, const string_t&) override {
    return check(builder_.value(value));
  }
  bool string(string_t& value) override { return check(builder_.value(std::move(value))); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return check(builder_.open(json::object())); }
  bool start_array(std::size_t) override { return check(builder_.open(json::array())); }
  bool key(string_t& name) override { return check(builder_.key(std::move(name))); }
  bool end_object() override { return builder_.close(), true; }
  bool end_array() override { return builder_.close(), true; }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    std::string_view reason = error.what();
    if (const auto end = reason.find("] "); end != reason.npos) reason.remove_prefix(end + 2);
    throw BadInput(message(where_, "no valid JSON at byte ", position, ": ", reason));
  }

  json take() { return builder_.take(); }

 private:
  bool check(const std::string& reason) const {
    require(reason.empty(), where_, "near byte ", taken_, ": ", reason);
    return true;
  }

  JsonBuilder builder_;
  std::string_view where_;
  const std::size_t& taken_;
};

template <class Json>
void write(const std::filesystem::path& path, const Json& value) {
  std::string text;
  try {
    text = value.dump(2) + "\n";
  } catch (const nlohmann::detail::exception& error) {
    throw BadInput(message(path.string(), "cannot be written as JSON: ", error.what()));
  }
  write_file(path, text);
}

}  // namespace

json parse_json(std::string_view text, std::string_view where, const TextLimits& limits) {
  require(text.size() <= limits.max_bytes, where, "JSON text of ", text.size(),
          " bytes is over the limit of ", limits.max_bytes);
  std::size_t taken = 0;
  Receiver receiver(limits, where, taken);
  const CountingIterator begin(text.data(), &taken);
  const CountingIterator end(text.data() + text.size(), &taken);
  require(json::sax_parse(begin, end, &receiver), where, "no valid JSON near byte ", taken);
  return receiver.take();
}

json load_json(const std::filesystem::path& path, const TextLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path.string(), limits);
}

void write_json(const std::filesystem::path& path, const json& value) { write(path, value); }

void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& value) {
  write(path, value);
}

}  // namespace attar::io
