#include <nlohmann/json.hpp>

#include "compress/tokenize/json_field.h"
#include "compress/tokenize/tokenizer_json.h"
#include "compress/tokenize/trim.h"

namespace attar {
namespace {

using nlohmann::json;
using tokenize::Node;

std::int64_t need_place(KeptTokens kept, const Node& id) {
  const auto place = place_of(kept, id.integer());
  require(place.has_value(), id.where, "token ", id.integer(),
          " goes, and the file cannot be without it");
  return *place;
}

json trim_vocab(const Node& vocab, KeptTokens kept) {
  json left = json::object();
  for (const auto& [token, id] : vocab.object().value.items()) {
    if (const auto place = place_of(kept, Node{id, vocab.where}.integer())) left[token] = *place;
  }
  return left;
}

// Merges whose parts and result are all left.
json trim_merges(const Node& merges, const json& vocab, const std::string& prefix) {
  json left = json::array();
  for (std::size_t i = 0; i < merges.array().value.size(); ++i) {
    const auto [a, b] = tokenize::read_merge(merges[i]);
    const std::string joined =
        std::string(a) + std::string(b.substr(std::min(prefix.size(), b.size())));
    const bool stays = vocab.contains(a) && vocab.contains(b) && vocab.contains(joined);
    if (stays) left.push_back(merges.value[i]);
  }
  return left;
}

json trim_added(const Node& added, KeptTokens kept) {
  json left = json::array();
  for (std::size_t i = 0; i < added.array().value.size(); ++i) {
    const auto place = place_of(kept, added[i]["id"].integer());
    if (!place) continue;
    left.push_back(added.value[i]);
    left.back()["id"] = *place;
  }
  return left;
}

json trim_post_processor(const Node& node, KeptTokens kept) {
  json left = node.value;
  const std::string type = node.type();
  if (type == "Sequence") {
    const Node steps = node["processors"];
    for (std::size_t i = 0; i < steps.array().value.size(); ++i) {
      left["processors"][i] = trim_post_processor(steps[i], kept);
    }
  } else if (type == "TemplateProcessing" && node.has("special_tokens")) {
    const Node tokens = node["special_tokens"];
    for (const auto& [name, token] : tokens.object().value.items()) {
      const Node ids = Node{token, tokens.where + '.' + name}["ids"];
      for (std::size_t i = 0; i < ids.array().value.size(); ++i) {
        left["special_tokens"][name]["ids"][i] = need_place(kept, ids[i]);
      }
    }
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    for (const char* key : {"sep", "cls"}) {
      const Node pair = node[key];
      require(pair.array().value.size() == 2, pair.where, "must be a token and its id");
      left[key][1] = need_place(kept, pair[1]);
    }
  }
  return left;
}

// A number, or a list of numbers and lists, with what goes left out.
nlohmann::ordered_json renumbered(const nlohmann::ordered_json& ids, KeptTokens kept) {
  if (ids.is_number_integer()) {
    const auto id = ids.get<std::int64_t>();
    const auto place = id < 0 ? std::optional(id) : place_of(kept, id);
    return place ? nlohmann::ordered_json(*place) : nlohmann::ordered_json();
  }
  if (!ids.is_array()) return ids;
  nlohmann::ordered_json left = nlohmann::ordered_json::array();
  for (const auto& id : ids) {
    nlohmann::ordered_json place = renumbered(id, kept);
    if (!place.is_null()) left.push_back(std::move(place));
  }
  return left;
}

}  // namespace

json trim_tokenizer_json(const json& file, KeptTokens kept, std::string_view where) {
  const Node root{file, std::string(where) + ":"};
  const Node model = root.object()["model"];
  json left = file;
  if (kept.empty()) return left;
  left["model"]["vocab"] = trim_vocab(model["vocab"], kept);
  left["model"]["merges"] = trim_merges(model["merges"], left["model"]["vocab"],
                                        model.string_or("continuing_subword_prefix", ""));
  if (root.has("added_tokens")) left["added_tokens"] = trim_added(root["added_tokens"], kept);
  if (root.has("post_processor")) {
    left["post_processor"] = trim_post_processor(root["post_processor"], kept);
  }
  if (root.has("padding") && root["padding"].has("pad_id")) {
    left["padding"]["pad_id"] = need_place(kept, root["padding"]["pad_id"]);
  }
  return left;
}

void renumber_ids(nlohmann::ordered_json& file, KeptTokens kept) {
  if (kept.empty() || !file.is_object()) return;
  for (auto entry = file.begin(); entry != file.end();) {
    const std::string& key = entry.key();
    const bool ids = key.ends_with("_token_id") || key.ends_with("_token_ids") ||
                     key == "suppress_tokens" || key == "begin_suppress_tokens" ||
                     key == "bad_words_ids";
    const bool told = ids && !entry->is_null();
    if (told) *entry = renumbered(*entry, kept);
    const bool gone = told && entry->is_null();
    entry = gone ? file.erase(entry) : std::next(entry);
  }
  const auto decoder = file.find("added_tokens_decoder");
  if (decoder == file.end() || !decoder->is_object()) return;
  nlohmann::ordered_json left = nlohmann::ordered_json::object();
  for (const auto& [id, token] : decoder->items()) {
    const bool number =
        !id.empty() && id.size() < 10 && id.find_first_not_of("0123456789") == std::string::npos;
    if (!number) continue;
    if (const auto place = place_of(kept, std::stoll(id))) left[std::to_string(*place)] = token;
  }
  *decoder = std::move(left);
}

}  // namespace attar
