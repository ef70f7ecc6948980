#include "compress/io/json_builder.h"

#include <algorithm>
#include <utility>

namespace attar::io {
namespace {

struct TreeSize {
  std::size_t values = 1;
  std::size_t depth = 0;
};

// Recursion is bounded: nothing deeper than the limit was ever built.
TreeSize measure(const nlohmann::json& tree) {
  TreeSize size;
  if (!tree.is_structured()) return size;
  for (const auto& child : tree) {
    const TreeSize below = measure(child);
    size.values += below.values;
    size.depth = std::max(size.depth, below.depth);
  }
  ++size.depth;
  return size;
}

}  // namespace

bool JsonBuilder::wants_key() const {
  return slot_ == nullptr && !open_.empty() && open_.back()->is_object();
}

std::string JsonBuilder::put(nlohmann::json value, std::size_t values, std::size_t depth) {
  if (open_.size() + depth > limits_.max_depth) {
    return "nested deeper than " + std::to_string(limits_.max_depth) + " levels";
  }
  values_ += values;
  if (values_ > limits_.max_values) {
    return "more than " + std::to_string(limits_.max_values) + " values";
  }
  const bool container = depth > 0 && value.empty();
  nlohmann::json* place = &root_;
  if (slot_ != nullptr) {
    place = std::exchange(slot_, nullptr);
  } else if (!open_.empty()) {
    place = &open_.back()->emplace_back(nullptr);
  }
  *place = std::move(value);
  if (container) open_.push_back(place);
  return {};
}

std::string JsonBuilder::open(nlohmann::json empty_container) {
  return put(std::move(empty_container), 1, 1);
}

const nlohmann::json& JsonBuilder::close() {
  const nlohmann::json& ended = *open_.back();
  open_.pop_back();
  return ended;
}

std::string JsonBuilder::key(std::string name) {
  const auto [entry, fresh] = open_.back()->emplace(name, nullptr);
  if (!fresh) return "the key '" + name + "' stands twice in one object";
  slot_ = &*entry;
  return {};
}

std::string JsonBuilder::value(nlohmann::json scalar) { return put(std::move(scalar), 1, 0); }

std::string JsonBuilder::copy(const nlohmann::json& tree) {
  const TreeSize size = measure(tree);
  const std::size_t before = open_.size();
  std::string reason = put(tree, size.values, size.depth);
  if (open_.size() > before) open_.pop_back();  // an empty container, already whole
  return reason;
}

std::size_t count_values(const nlohmann::json& tree) { return measure(tree).values; }

std::size_t find_invalid_utf8(std::string_view text) {
  const auto byte = [&](std::size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
  };
  for (std::size_t at = 0; at < text.size();) {
    const unsigned first = byte(at);
    std::size_t length = 1;
    unsigned low = 0x80;  // bounds of the second byte: no overlong forms, surrogates, or > U+10FFFF
    unsigned high = 0xBF;
    if (first < 0x80) {
      ++at;
      continue;
    }
    if (first >= 0xC2 && first <= 0xDF) {
      length = 2;
    } else if (first >= 0xE0 && first <= 0xEF) {
      length = 3;
      if (first == 0xE0) low = 0xA0;
      if (first == 0xED) high = 0x9F;
    } else if (first >= 0xF0 && first <= 0xF4) {
      length = 4;
      if (first == 0xF0) low = 0x90;
      if (first == 0xF4) high = 0x8F;
    } else {
      return at;
    }
    if (byte(at + 1) < low || byte(at + 1) > high) return at;
    for (std::size_t next = 2; next < length; ++next) {
      if ((byte(at + next) & 0xC0) != 0x80) return at;
    }
    at += length;
  }
  return std::string_view::npos;
}

}  // namespace attar::io
