#include "compress/tokenize/tokenizer_json.h"

namespace attar::tokenize {
namespace {

Vocabulary read_vocabulary(const Node& node) {
  Vocabulary vocabulary;
  for (const auto& [token, id] : node.object().value.items()) {
    vocabulary.add(token, Node{id, node.where}.integer(), node.where);
  }
  return vocabulary;
}

}  // namespace

std::pair<std::string_view, std::string_view> read_merge(const Node& merge) {
  if (merge.value.is_array()) {
    require(merge.value.size() == 2, merge.where, "a merge must have two parts, has ",
            merge.value.size());
    return {merge[0].string(), merge[1].string()};
  }
  const std::string_view text = merge.string();
  const std::size_t space = text.find(' ');
  require(space != std::string_view::npos && text.find(' ', space + 1) == std::string_view::npos,
          merge.where, "a merge must be two tokens and one space, is '", text, "'");
  return {text.substr(0, space), text.substr(space + 1)};
}

namespace {

std::shared_ptr<const Bpe> read_model(const Node& model,
                                      std::shared_ptr<const Vocabulary> vocabulary,
                                      std::optional<TokenId>& unknown) {
  BpeOptions options;
  if (model.has("unk_token")) {
    const Node token = model["unk_token"];
    options.unknown = vocabulary->id_of(token.string());
    require(options.unknown.has_value(), token.where, "the unknown token '", token.string(),
            "' is not in the vocabulary");
  }
  unknown = options.unknown;
  options.fuse_unknown = model.boolean_or("fuse_unk", false);
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  options.ignore_merges = model.boolean_or("ignore_merges", false);
  options.continuing_prefix = model.string_or("continuing_subword_prefix", "");
  options.word_suffix = model.string_or("end_of_word_suffix", "");
  if (model.has("dropout")) {
    require(model["dropout"].value == 0, model.where,
            "the model has BPE dropout, its ids are random; set dropout to null");
  }
  const Node list = model["merges"];
  Bpe::Pairs merges;
  merges.reserve(list.array().value.size());
  for (std::size_t i = 0; i < list.value.size(); ++i) merges.push_back(read_merge(list[i]));
  return std::make_shared<Bpe>(std::move(vocabulary), merges, options, list.where);
}

// Adds the tokens to `vocabulary`. `tokenizers` numbers by itself: a token that the model has keeps
// its id, others follow; where the file says another id, the ids would be off without a word.
std::vector<AddedToken> read_added(const Node& list, const Vocabulary& model,
                                   Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  TokenId next = static_cast<TokenId>(model.count());
  for (std::size_t i = 0; i < list.array().value.size(); ++i) {
    const Node node = list[i];
    AddedToken token;
    token.content = node["content"].string();
    if (token.content.empty()) continue;
    token.special = node.boolean_or("special", false);
    token.single_word = node.boolean_or("single_word", false);
    token.lstrip = node.boolean_or("lstrip", false);
    token.rstrip = node.boolean_or("rstrip", false);
    token.normalized = node.boolean_or("normalized", !token.special);
    const auto known = vocabulary.id_of(token.content);
    token.id = known.value_or(next);
    const TokenId said = node["id"].integer();
    require(said == token.id, node.where, "the added token '", token.content, "' says id ", said,
            " and would get id ", token.id, "; number the added tokens from the vocabulary's size");
    if (!known) vocabulary.add(token.content, next++, node.where);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

PipelineParts read_tokenizer_json(const nlohmann::json& file, std::string_view where) {
  const Node root{file, std::string(where) + ":"};
  const Node model = root.object()["model"];
  // Files of before 2021 have no type; of the models only BPE has merges.
  if (model.has("type") ? model.type() != "BPE" : !model.has("merges")) {
    refuse_type(model, "model");
  }
  PipelineParts parts;
  const auto vocabulary = std::make_shared<const Vocabulary>(read_vocabulary(model["vocab"]));
  parts.vocabulary = *vocabulary;
  parts.model = read_model(model, vocabulary, parts.special.unknown);
  if (root.has("added_tokens")) {
    parts.added = read_added(root["added_tokens"], *vocabulary, parts.vocabulary);
  }
  if (root.has("normalizer")) parts.normalizer = read_normalizer(root["normalizer"]);
  if (root.has("pre_tokenizer")) parts.pre_tokenizer = read_pre_tokenizer(root["pre_tokenizer"]);
  if (root.has("post_processor")) {
    parts.surrounding = read_post_processor(root["post_processor"]);
    for (const auto* ids : {&parts.surrounding.before, &parts.surrounding.after}) {
      for (const TokenId id : *ids) {
        require(!parts.vocabulary.token(id).empty(), root["post_processor"].where, "id ", id,
                " is not in the vocabulary of ", parts.vocabulary.size(), " tokens");
      }
    }
  }
  if (root.has("decoder")) parts.decoder = read_decoder(root["decoder"]);
  return parts;
}

}  // namespace attar::tokenize
