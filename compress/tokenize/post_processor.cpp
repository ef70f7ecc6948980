#include "compress/tokenize/post_processor.h"

namespace attar::tokenize {
namespace {

Surrounding read_template(const Node& node) {
  Surrounding result;
  bool seen_text = false;
  const Node single = node["single"];
  const Node specials = node["special_tokens"];
  for (std::size_t i = 0; i < single.array().value.size(); ++i) {
    const Node item = single[i];
    if (item.has("Sequence")) {
      require(!seen_text, item.where, "the text stands twice in the template for one text");
      seen_text = true;
      continue;
    }
    const Node ids = specials[item["SpecialToken"]["id"].string()]["ids"];
    for (std::size_t k = 0; k < ids.array().value.size(); ++k) {
      (seen_text ? result.after : result.before).push_back(ids[k].integer());
    }
  }
  require(seen_text, single.where, "the template has no place for the text");
  return result;
}

// ["</s>", 2]
TokenId read_pair(const Node& node) {
  require(node.array().value.size() == 2, node.where, "must be [token, id]");
  return node[1].integer();
}

}  // namespace

Surrounding read_post_processor(const Node& node) {
  const std::string type = node.type();
  if (type == "ByteLevel") return {};
  if (type == "TemplateProcessing") return read_template(node);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return {{read_pair(node["cls"])}, {read_pair(node["sep"])}};
  }
  if (type == "Sequence") {
    Surrounding result;
    const Node steps = node["processors"];
    for (std::size_t i = 0; i < steps.array().value.size(); ++i) {
      const Surrounding step = read_post_processor(steps[i]);
      result.before.insert(result.before.begin(), step.before.begin(), step.before.end());
      result.after.insert(result.after.end(), step.after.begin(), step.after.end());
    }
    return result;
  }
  refuse_type(node, "post-processor");
}

}  // namespace attar::tokenize
