#include "compress/io/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "compress/io/json_builder.h"
#include "compress/io/yaml_scalar.h"

namespace attar::io {
namespace {

using nlohmann::json;

constexpr std::string_view kCoreTag = "tag:yaml.org,2002:";

std::string place(const YAML::Mark& mark) {
  return "line " + std::to_string(mark.line + 1) + ", column " + std::to_string(mark.column + 1);
}

// Receives yaml-cpp's events. That parser descends by recursion, but tells of each level before it
// enters it, so throwing here at the limit keeps its stack shallow.
class Receiver : public YAML::EventHandler {
 public:
  Receiver(const TextLimits& limits, std::string_view where)
      : builder_(limits), where_(where), max_remembered_(limits.max_values) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (builder_.wants_key()) refuse(mark, "a key must be text; write it in quotes");
    scalar(mark, anchor, nullptr);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    if (builder_.wants_key()) {
      check(mark, builder_.key(text));
      remember(mark, anchor, text);
      return;
    }
    scalar(mark, anchor, resolve(mark, tag, text));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) refuse(mark, "an alias to something that is not complete yet");
    if (!builder_.wants_key()) return check(mark, builder_.copy(found->second));
    if (!found->second.is_string()) refuse(mark, "a key must be text");
    check(mark, builder_.key(found->second.get<std::string>()));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, "seq", anchor, json::array());
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, "map", anchor, json::object());
  }
  void OnSequenceEnd() override { close(); }
  void OnMapEnd() override { close(); }

  json take() { return builder_.take(); }

 private:
  struct Open {
    YAML::Mark mark;
    YAML::anchor_t anchor;
  };

  [[noreturn]] void refuse(const YAML::Mark& mark, std::string_view reason) const {
    throw BadInput(message(where_, place(mark), ": ", reason));
  }
  void check(const YAML::Mark& mark, const std::string& reason) const {
    if (!reason.empty()) refuse(mark, reason);
  }

  json resolve(const YAML::Mark& mark, std::string_view tag, const std::string& text) const {
    if (tag == "!" || tag == std::string(kCoreTag) + "str") return text;
    YamlScalar plain = resolve_plain_scalar(text);
    if (!plain.refusal.empty()) refuse(mark, "'" + text + "' is " + std::string(plain.refusal));
    if (tag.empty() || tag == "?") return std::move(plain.value);
    const json& value = plain.value;
    const std::string_view kind = tag.starts_with(kCoreTag) ? tag.substr(kCoreTag.size()) : "";
    if ((kind == "null" && value.is_null()) || (kind == "bool" && value.is_boolean()) ||
        (kind == "int" && value.is_number_integer())) {
      return value;
    }
    if (kind == "float" && value.is_number()) return value.get<double>();
    refuse(mark, "'" + text + "' with the tag '" + std::string(tag) +
                     "'; only !!str, !!int, !!float, !!bool and !!null that fit are read");
  }

  void scalar(const YAML::Mark& mark, YAML::anchor_t anchor, json value) {
    remember(mark, anchor, value);
    check(mark, builder_.value(std::move(value)));
  }

  void open(const YAML::Mark& mark, std::string_view tag, std::string_view kind,
            YAML::anchor_t anchor, json empty) {
    if (builder_.wants_key()) refuse(mark, "a key must be text, not a list or a mapping");
    if (!tag.empty() && tag != "?" && tag != "!" && tag != std::string(kCoreTag).append(kind)) {
      refuse(mark, "unknown tag '" + std::string(tag) + "'");
    }
    check(mark, builder_.open(std::move(empty)));
    open_.push_back({mark, anchor});
  }

  void close() {
    const json& ended = builder_.close();
    remember(open_.back().mark, open_.back().anchor, ended);
    open_.pop_back();
  }

  void remember(const YAML::Mark& mark, YAML::anchor_t anchor, const json& value) {
    if (anchor == YAML::NullAnchor) return;
    remembered_ += count_values(value);
    if (remembered_ > max_remembered_) refuse(mark, "the anchors hold too many values");
    anchors_[anchor] = value;
  }

  JsonBuilder builder_;
  std::string_view where_;
  std::size_t max_remembered_;
  std::size_t remembered_ = 0;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, json> anchors_;
};

// yaml-cpp takes byte 0x04 for the end of its input, and YAML allows no control characters.
void check_characters(std::string_view text, std::string_view where) {
  const std::size_t broken = find_invalid_utf8(text);
  require(broken == text.npos, where, "byte ", broken, " is not UTF-8; save the file as UTF-8");
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto character = static_cast<unsigned char>(text[at]);
    const bool control =
        (character < 0x20 && character != '\n' && character != '\t' && character != '\r') ||
        character == 0x7F;
    require(!control, where, "byte ", at, " is the control character ", static_cast<int>(character),
            ", which YAML does not allow");
  }
}

}  // namespace

json parse_yaml(std::string_view text, std::string_view where, const TextLimits& limits) {
  require(text.size() <= limits.max_bytes, where, "YAML text of ", text.size(),
          " bytes is over the limit of ", limits.max_bytes);
  check_characters(text, where);
  std::istringstream stream{std::string(text)};
  Receiver receiver(limits, where);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(receiver)) return nullptr;
    json document = receiver.take();
    Receiver second(limits, where);
    require(!parser.HandleNextDocument(second), where,
            "holds more than one YAML document ('---'); give one");
    return document;
  } catch (const YAML::Exception& error) {
    throw BadInput(message(where, place(error.mark), ": no valid YAML: ", error.msg));
  }
}

json load_yaml(const std::filesystem::path& path, const TextLimits& limits) {
  return parse_yaml(read_file(path, limits.max_bytes), path.string(), limits);
}

}  // namespace attar::io
