#include "distill/loss_plan.h"

#include "compress/core/errors.h"
#include "compress/core/fields.h"

namespace attar {
namespace {

using nlohmann::json;

struct ShareOptions {
  double weight = 1, from = 0, until = 1;

  template <class C, class Visit>
  static void share_fields(Visit&& visit) {
    visit("weight", &C::weight, Range{0.0, 1e6}, "Factor of the loss.");
    visit("from", &C::from, Range{0.0, 1.0}, "Share of the steps after which it begins.");
    visit("until", &C::until, Range{0.0, 1.0}, "Share of the steps after which it ends.");
  }
};

struct PlainOptions : ShareOptions {
  double temperature = 1;

  template <class Visit>
  static void fields(Visit&& visit) {
    share_fields<PlainOptions>(visit);
    visit("temperature", &PlainOptions::temperature, Range{0.05, 100.0},
          "Divides the logits of both; the loss is multiplied by its square.");
  }
};

struct MixOptions : ShareOptions {
  double temperature = 1, mix = 0.5;

  template <class Visit>
  static void fields(Visit&& visit) {
    share_fields<MixOptions>(visit);
    visit("temperature", &MixOptions::temperature, Range{0.05, 100.0},
          "Divides the logits of both; the loss is multiplied by its square.");
    visit("mix", &MixOptions::mix, Range{0.0, 1.0}, "Share of the first distribution.");
  }
};

struct TaidOptions : ShareOptions {
  double temperature = 1, start = 0.4, end = 1, alpha = 5e-4, momentum = 0.99;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = TaidOptions;
    share_fields<C>(visit);
    visit("temperature", &C::temperature, Range{0.05, 100.0}, "Divides the logits.");
    visit("start", &C::start, Range{0.0, 1.0}, "Share of the teacher at the beginning.");
    visit("end", &C::end, Range{0.0, 1.0}, "Share of the teacher at the end.");
    visit("alpha", &C::alpha, Range{0.0, 1.0}, "How much faster while the loss falls.");
    visit("momentum", &C::momentum, Range{0.0, 0.999999}, "Of the loss's relative fall.");
  }
};

struct HiddenOptions : ShareOptions {
  std::string projection = "auto";
  double massive = 100;
  json boundaries = json::array();

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = HiddenOptions;
    share_fields<C>(visit);
    visit("projection", &C::projection, OneOf{{"auto", "learned", "closed", "none"}},
          "From the student's width to the teacher's; auto: none where widths agree, else closed.");
    visit("massive", &C::massive, Range{1.0, 1e12},
          "Channels of so many times the median mean square are left out.");
    visit("boundaries", &C::boundaries, Any{},
          "Blocks of the student after which states are compared, 1..layers.");
  }
};

struct RelationOptions : ShareOptions {
  std::int64_t student_block = -1, teacher_block = -1, heads = 0;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = RelationOptions;
    share_fields<C>(visit);
    visit("student_block", &C::student_block, Range<std::int64_t>{-1, 1 << 20},
          "-1: the last that has attention.");
    visit("teacher_block", &C::teacher_block, Range<std::int64_t>{-1, 1 << 20},
          "-1: three quarters up, or the last before that has attention.");
    visit("heads", &C::heads, Range<std::int64_t>{0, 1 << 16},
          "Relation heads; 0: the most, up to 64, that divide all widths.");
  }
};

struct Kind {
  const char* name;
  ResponseKind kind;
  double mix;  // default; negative: the kind has none
};
constexpr Kind kKinds[] = {{"forward_kl", ResponseKind::forward_kl, -1},
                           {"reverse_kl", ResponseKind::reverse_kl, -1},
                           {"jensen_shannon", ResponseKind::jensen_shannon, 0.5},
                           {"skew_forward", ResponseKind::skew_forward, 0.1},
                           {"skew_reverse", ResponseKind::skew_reverse, 0.1},
                           {"total_variation", ResponseKind::total_variation, -1},
                           {"cross_entropy", ResponseKind::cross_entropy, -1}};

ActiveShare share_of(const ShareOptions& options, const std::string& where) {
  require<UsageError>(options.from < options.until, where, "from must be less than until, got ",
                      options.from, " and ", options.until);
  return {options.from, options.until};
}

// The ends of the mixtures are the divergences themselves (special-cased, although
// the interior tends to 0 there).
ResponseTerm mixed_term(ResponseKind kind, const MixOptions& options, const std::string& where) {
  ResponseTerm term{kind, options.weight, options.temperature, options.mix};
  if (options.mix > 0 && options.mix < 1) return term;
  require<UsageError>(kind == ResponseKind::jensen_shannon || options.mix == 0, where,
                      "mix must be below 1, got ", options.mix);
  const bool forward = kind == ResponseKind::skew_forward ||
                       (kind == ResponseKind::jensen_shannon && options.mix == 0);
  term.kind = forward ? ResponseKind::forward_kl : ResponseKind::reverse_kl;
  return term;
}

void add(const std::string& name, const json& options, const std::string& where, LossPlan& plan) {
  std::string known;
  for (const Kind& kind : kKinds) {
    known += std::string(kind.name) + ", ";
    if (name != kind.name) continue;
    if (kind.mix >= 0) {
      MixOptions defaults;
      defaults.mix = kind.mix;
      const auto read = read_fields<MixOptions>(options, where, defaults);
      plan.responses.push_back(
          {name, mixed_term(kind.kind, read, where), share_of(read, where), {}});
    } else {
      const auto read = read_fields<PlainOptions>(options, where);
      plan.responses.push_back(
          {name, {kind.kind, read.weight, read.temperature, 0}, share_of(read, where), {}});
    }
    return;
  }
  if (name == "taid") {
    const auto read = read_fields<TaidOptions>(options, where);
    plan.responses.push_back({name,
                              {ResponseKind::taid, read.weight, read.temperature, read.start},
                              share_of(read, where),
                              TaidConfig{read.start, read.end, read.alpha, read.momentum}});
  } else if (name == "hidden") {
    const auto read = read_fields<HiddenOptions>(options, where);
    HiddenPart part{read.weight, share_of(read, where), {}, read.projection, read.massive};
    require<UsageError>(read.boundaries.is_array(), where, "boundaries must be a list of numbers");
    for (const json& each : read.boundaries) {
      require<UsageError>(each.is_number_integer(), where, "boundaries must be a list of numbers");
      part.boundaries.push_back(each.get<std::int64_t>());
    }
    plan.hidden.push_back(std::move(part));
  } else if (name == "relation") {
    const auto read = read_fields<RelationOptions>(options, where);
    plan.relations.push_back(
        {read.weight, share_of(read, where), read.student_block, read.teacher_block, read.heads});
  } else {
    throw UsageError(
        message(where, "unknown loss '", name, "'; known: ", known, "taid, hidden, relation"));
  }
}

void add_all(const json& losses, const std::string& where, LossPlan& plan) {
  if (losses.is_string()) return add(losses.get<std::string>(), {}, where, plan);
  if (losses.is_array()) {
    for (const json& each : losses) add_all(each, where, plan);
    return;
  }
  require<UsageError>(losses.is_object(), where,
                      "must be the name of a loss, a mapping from names to options, or a list");
  for (const auto& [name, options] : losses.items()) {
    add(name, options, where + "." + name, plan);
  }
}

}  // namespace

bool LossPlan::needs_teacher() const {
  return !hidden.empty() || !relations.empty() ||
         std::any_of(responses.begin(), responses.end(), [](const ResponsePart& part) {
           return part.term.kind != ResponseKind::cross_entropy;
         });
}

LossPlan read_losses(const json& losses, const std::string& where) {
  LossPlan plan;
  add_all(losses, where, plan);
  require<UsageError>(!plan.responses.empty() || !plan.hidden.empty() || !plan.relations.empty(),
                      where, "no loss is given");
  return plan;
}

}  // namespace attar
