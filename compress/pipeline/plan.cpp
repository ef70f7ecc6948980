#include "compress/pipeline/plan.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "compress/core/errors.h"
#include "compress/formats/file_source.h"
#include "compress/formats/model_file.h"
#include "compress/pipeline/memory_model.h"
#include "compress/pipeline/plan_checks.h"

namespace attar {
namespace {

std::string type_of(const std::optional<QuantScheme>& scheme, const std::string& plain) {
  return scheme ? describe(*scheme) : plain;
}

std::int64_t bytes_on_grid(const QuantScheme& scheme, const LinearShape& shape) {
  const double bits = scheme.bits_per_weight(shape.in);
  return static_cast<std::int64_t>(bits * static_cast<double>(shape.out * shape.in) / 8);
}

// Values that stay, in float32, and a bit for every weight.
std::int64_t bytes_of_sparse(double density, const LinearShape& shape) {
  const auto values = static_cast<double>(shape.out * shape.in) * density;
  return static_cast<std::int64_t>(4 * values) + shape.out * ((shape.in + 7) / 8);
}

std::vector<PlannedTensor> source_tensors(const ModelSource& source) {
  std::vector<PlannedTensor> tensors;
  const ModelConfig& config = source.config();
  const auto add = [&](std::string name, LinearShape shape, const StoredWeight& stored) {
    PlannedTensor tensor{std::move(name), shape.out, shape.in, stored.type, stored.bytes};
    tensor.result_type = stored.type;
    tensor.result_bytes = stored.bytes;
    tensor.in_codes = stored.scheme || stored.codes_beneath;
    tensor.factored = stored.has_term;
    tensors.push_back(std::move(tensor));
  };
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) {
      add(layer_name(block, role), shape_of(config, block, role),
          stored_weight(source, block, role));
    }
  }
  const LinearShape vocabulary{config.vocabulary, config.hidden};
  add("model.embed_tokens", vocabulary, stored_embedding(source));
  if (!config.tied_head) add("lm_head", vocabulary, stored_head(source));
  return tensors;
}

// The tensors as a pass leaves them when it changes the model's shape. Which blocks a pass takes
// out is known later: the plan shows the first ones.
void follow_shape(const ModelConfig& shape, std::vector<PlannedTensor>& tensors,
                  PlannedModel& planned) {
  const auto forget = [&](const std::string& layer) {
    planned.layers.erase(layer), planned.terms.erase(layer);
    planned.candidates.erase(layer), planned.rounds_input.erase(layer);
  };
  const auto kept = static_cast<std::size_t>(shape.layers) * kRoles.size();
  std::size_t blocks = 0;
  while (blocks < tensors.size() && tensors[blocks].name.starts_with("model.layers.")) ++blocks;
  for (std::size_t i = kept; i < blocks; ++i) forget(tensors[i].name);
  tensors.erase(tensors.begin() + static_cast<std::ptrdiff_t>(kept),
                tensors.begin() + static_cast<std::ptrdiff_t>(blocks));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const LinearShape now = i < kept ? shape_of(shape, static_cast<std::int64_t>(i / kRoles.size()),
                                                kRoles[i % kRoles.size()])
                                     : LinearShape{shape.vocabulary, shape.hidden};
    PlannedTensor& tensor = tensors[i];
    if (tensor.out == now.out && tensor.in == now.in) continue;
    if (i >= kept && tensor.in == now.in) {  // rows that go leave the others as they are
      tensor.result_bytes = tensor.result_bytes / tensor.out * now.out;
      tensor.out = now.out;
      continue;
    }
    tensor.out = now.out;
    tensor.in = now.in;
    tensor.result_type = "F32";
    tensor.result_bytes = now.out * now.in * 4;
    tensor.in_codes = false;
    if (i >= kept) continue;
    forget(tensor.name);
    planned.layers[tensor.name] = std::nullopt;
  }
}

// Bytes of factors in float16 that hold this share of a layer's parameters.
std::int64_t factor_bytes(double share, const PlannedTensor& tensor) {
  return static_cast<std::int64_t>(2 * share * static_cast<double>(tensor.out * tensor.in));
}

void enter_layer(const PlannedLayer& layer, PlannedTensor& tensor) {
  if (layer.adds) {
    tensor.factored = true;
    tensor.result_type += " + factors";
    tensor.result_bytes += factor_bytes(layer.parameters, tensor);
    return;
  }
  const LinearShape shape{tensor.out, tensor.in};
  tensor.in_codes = layer.scheme || !layer.candidates.empty();
  if (!layer.candidates.empty()) {
    tensor.factored = false;
    tensor.result_type = "one of " + std::to_string(layer.candidates.size()) + " grids";
    tensor.result_bytes = static_cast<std::int64_t>(layer.expected_bits / 8 *
                                                    static_cast<double>(shape.out * shape.in));
    return;
  }
  tensor.factored = !layer.scheme && layer.parameters < 1;
  const bool sparse = !layer.scheme && layer.density < 1;
  tensor.result_type =
      tensor.factored ? "factors" : type_of(layer.scheme, sparse ? "F32 sparse" : "F32");
  tensor.result_bytes = tensor.factored ? factor_bytes(layer.parameters, tensor)
                        : layer.scheme  ? bytes_on_grid(*layer.scheme, shape)
                        : sparse        ? bytes_of_sparse(layer.density, shape)
                                        : shape.out * shape.in * 4;
}

// Whether the layer is still the source's own but for a term.
void enter_term(const PlannedLayer& layer, const PlannedTensor& tensor, PlannedModel& planned) {
  const bool own = !planned.layers.contains(tensor.name) || planned.terms.contains(tensor.name);
  if (!layer.adds || !own) {
    planned.terms.erase(tensor.name);
    return;
  }
  planned.terms[tensor.name] +=
      std::llround(layer.parameters * static_cast<double>(tensor.out * tensor.in));
}

// Whether what the layer reads stays rounded though its codes get a term beside them.
void enter_rounding(const PlannedLayer& layer, const PlannedTensor& tensor, PlannedModel& planned) {
  const auto before = planned.layers.find(tensor.name);
  const bool rounds =
      before != planned.layers.end() && before->second && before->second->token_grid();
  if (layer.adds && rounds) planned.rounds_input.insert(tensor.name);
  if (!layer.adds) planned.rounds_input.erase(tensor.name);
}

// A pass that works on codes finds some. `fresh`: layers whose plain weights are still there, since
// blocks are walked once for neighbouring passes.
void check_codes(const Pass& pass, const std::string& where, const std::set<std::string>& fresh,
                 const std::vector<PlannedTensor>& tensors) {
  const NeededCodes needed = pass.needs().codes;
  const bool any = std::any_of(tensors.begin(), tensors.end(),
                               [](const PlannedTensor& tensor) { return tensor.in_codes; });
  require<UsageError>(needed == NeededCodes::kNone || any, where, pass.name(),
                      " finds nothing in codes; put it behind a pass that rounds");
  require<UsageError>(needed != NeededCodes::kFresh || !fresh.empty(), where, pass.name(),
                      " needs the weights as they were before rounding, which are gone; put it "
                      "right behind the pass that rounds (rtn, gptq, awq) plain weights");
}

// A pass that repairs finds what its neighbours have changed.
void check_losses(const Pass& pass, const std::string& where, const PassPlan& plan,
                  const std::set<std::string>& changed) {
  if (!pass.needs().losses) return;
  const bool any =
      std::any_of(plan.layers.begin(), plan.layers.end(), [&](const PlannedLayer& layer) {
        return layer.changes && changed.contains(layer_name(layer.block, layer.role));
      });
  require<UsageError>(any, where, pass.name(),
                      " finds nothing to make up for; put it right behind a pass that changes its "
                      "layers block by block (rtn, gptq, awq, sparse)");
}

// What the passes in order would do; fills `tensors` and returns what they leave.
PlannedModel enter_passes(const std::vector<std::unique_ptr<Pass>>& passes,
                          const ModelConfig& config, std::vector<PlannedTensor>& tensors) {
  PlannedModel planned{config, {}, {}};
  const std::vector<PassPlan> plans = plan_passes(passes, config);
  std::set<std::string> fresh, changed;  // in the walk of neighbouring blockwise passes
  for (std::size_t pass = 0; pass < passes.size(); ++pass) {
    check_codes(*passes[pass], "passes." + std::to_string(pass), fresh, tensors);
    const bool blockwise = dynamic_cast<const BlockwisePass*>(passes[pass].get()) != nullptr;
    if (!blockwise) fresh.clear(), changed.clear();
    check_losses(*passes[pass], "passes." + std::to_string(pass), plans[pass], changed);
    for (const PlannedLayer& layer : plans[pass].layers) {
      const auto index =
          static_cast<std::size_t>(layer.block) * kRoles.size() + index_of(layer.role);
      PlannedTensor& tensor = tensors.at(index);
      tensor.steps.push_back({std::string(passes[pass]->name()), layer.rule, layer.action});
      if (!layer.changes || tensor.empty()) continue;
      if (layer.plain_only && tensor.in_codes) continue;
      if (layer.keeps_form && tensor.factored) continue;
      if (passes[pass]->needs().losses && !changed.contains(tensor.name)) continue;
      require<UsageError>(!layer.refuses_codes || !tensor.in_codes,
                          "passes." + std::to_string(pass), passes[pass]->name(),
                          " would undo the codes of ", tensor.name, "; leave it out (skip:)");
      if (blockwise) changed.insert(tensor.name);
      enter_term(layer, tensor, planned);
      enter_rounding(layer, tensor, planned);
      planned.layers[tensor.name] = layer.scheme;
      planned.candidates.erase(tensor.name);
      if (!layer.candidates.empty()) planned.candidates[tensor.name] = layer.candidates;
      const bool first = blockwise && layer.scheme && !tensor.in_codes;
      enter_layer(layer, tensor);
      if (first) fresh.insert(tensor.name);
      if (layer.adds) fresh.erase(tensor.name);
    }
    if (plans[pass].before.tied_head && !plans[pass].after.tied_head) {
      PlannedTensor head = tensors.back();
      head.name = "lm_head";
      head.source_bytes = 0;  // the embedding's
      tensors.push_back(std::move(head));
    }
    const PlannedRows& rows = plans[pass].rows;
    planned.rows_go = planned.rows_go || rows.fewer;
    for (PlannedTensor& tensor : tensors) {
      if (rows.action.empty() || tensor.name.starts_with("model.layers.")) continue;
      tensor.steps.push_back({std::string(passes[pass]->name()), "rows", rows.action});
      tensor.in_codes = tensor.in_codes || rows.rounds;
      if (!rows.scheme && !rows.plain) continue;
      if (rows.plain_only && tensor.in_codes) continue;
      tensor.in_codes = rows.scheme.has_value();
      planned.layers[tensor.name] = rows.scheme;
      tensor.result_type = type_of(rows.scheme, "F32");
      tensor.result_bytes = rows.scheme ? bytes_on_grid(*rows.scheme, {tensor.out, tensor.in})
                                        : 4 * tensor.out * tensor.in;
    }
    planned.config = plans[pass].after;
    follow_shape(planned.config, tensors, planned);
  }
  return planned;
}

// The same with one grid for each layer where the run chooses.
template <class Choose>
PlannedModel with_choice(const PlannedModel& planned, const Choose& choose) {
  PlannedModel chosen = planned;
  chosen.candidates.clear();
  for (const auto& [layer, grids] : planned.candidates) chosen.layers[layer] = choose(layer, grids);
  return chosen;
}

// Where the run chooses grids, the file must hold each of them, and takes at most what it says.
ExportPlan check_every_choice(const ModelSource& source, const PlannedModel& planned,
                              const ExportOptions& options) {
  using Grids = std::vector<QuantScheme>;
  std::size_t most = 0;
  for (const auto& [layer, grids] : planned.candidates) most = std::max(most, grids.size());
  if (most == 0) return check_export(source, planned, options);
  try {
    for (std::size_t choice = 0; choice < most; ++choice) {
      const auto at = [&](const std::string&, const Grids& grids) {
        return grids[std::min(choice, grids.size() - 1)];
      };
      check_export(source, with_choice(planned, at), options);
    }
  } catch (const DoesNotFit& error) {
    // What does not fit whatever is chosen has its own message.
    if (options.format != ExportFormat::kCompressedTensors) {
      const auto plain = [](const std::string&, const Grids&) { return std::nullopt; };
      check_export(source, with_choice(planned, plain), options);
    }
    throw DoesNotFit(std::string(error.what()) +
                     "; quantize.fit may choose this grid: narrow its types, or its widths, "
                     "group_sizes and symmetric");
  }
  const auto largest = [](const std::string&, const Grids& grids) {
    return *std::max_element(grids.begin(), grids.end(), [](const auto& a, const auto& b) {
      constexpr std::int64_t kColumns = 1 << 20;
      return a.bits_per_weight(kColumns) < b.bits_per_weight(kColumns);
    });
  };
  ExportPlan found = check_export(source, with_choice(planned, largest), options);
  found.notes.push_back("grids are chosen in the run: these are the most bytes they can take");
  return found;
}

void plan_exports(const Recipe& recipe, const ModelSource& source, const PlannedModel& planned,
                  Plan& plan) {
  const auto factored = std::count_if(plan.tensors.begin(), plan.tensors.end(),
                                      [](const PlannedTensor& tensor) { return tensor.factored; });
  for (const ExportStep& step : recipe.exports) {
    const ExportPlan found = check_every_choice(source, planned, step.options);
    plan.exports.push_back(
        {step.config.path, step.config.format, found.bytes, found.rounds(), found.notes});
    if (factored > 0 && step.options.format != ExportFormat::kPeft) {
      plan.exports.back().notes.push_back(
          std::to_string(factored) +
          " layers are factors, or have a low-rank correction: " + step.config.format +
          " files hold none, so they are multiplied out to plain values and take the dense "
          "layer's bytes; the model computes the same");
    }
    std::map<std::string, const TensorExport*> by_layer;
    for (const TensorExport& tensor : found.tensors) by_layer[tensor.layer] = &tensor;
    for (PlannedTensor& tensor : plan.tensors) {
      const auto entry = by_layer.find(tensor.name);
      const TensorExport* exported = entry == by_layer.end() ? nullptr : entry->second;
      tensor.export_types.push_back(exported ? exported->type + ", " + exported->how : "-");
      tensor.export_bytes.push_back(exported ? exported->bytes : 0);
    }
  }
}

void add_totals(Plan& plan) {
  double bits = 0, weights = 0;
  for (const PlannedTensor& tensor : plan.tensors) {
    plan.result_bytes += tensor.result_bytes;
    if (!tensor.name.starts_with("model.layers.")) continue;
    bits += 8 * static_cast<double>(tensor.result_bytes);
    weights += static_cast<double>(tensor.out * tensor.in);
  }
  plan.bits_per_weight = bits / weights;
  for (const PlannedPhase& phase : plan.phases) {
    plan.peak_bytes = std::max(plan.peak_bytes, phase.peak_bytes);
    plan.seconds += phase.seconds;
  }
}

// Checkpoints hold codes as bytes and other values in float32 at most.
std::uint64_t disk_of(const Plan& plan, std::span<const std::unique_ptr<Pass>> passes) {
  std::uint64_t bytes = 0;
  for (const PlannedExport& planned : plan.exports) bytes += planned.bytes;
  if (passes.empty()) return bytes;
  std::int64_t state = 0;  // of one after the other
  for (const auto& pass : passes) state = std::max(state, pass->state_bytes(plan.config));
  bytes += static_cast<std::uint64_t>(state);
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.name.starts_with("model.layers.") && tensor.steps.empty()) continue;
    const std::int64_t each = tensor.in_codes ? 1 : 4;
    bytes += static_cast<std::uint64_t>(tensor.out * tensor.in * each * 9 / 8);
  }
  return bytes;
}

}  // namespace

std::vector<std::unique_ptr<Pass>> make_passes(const Recipe& recipe, const PassRegistry& registry) {
  std::vector<std::unique_ptr<Pass>> passes;
  for (const PassStep& step : recipe.passes) {
    passes.push_back(registry.make(step.name, step.options, step.where));
  }
  return passes;
}

Plan make_plan(const Recipe& recipe, const PassRegistry& registry, const PlanOptions& options) {
  Plan plan;
  plan.recipe = recipe.resolved(registry);
  const auto passes = make_passes(recipe, registry);
  const auto source = open_model(recipe.model);
  plan.config = source->config();
  plan.model_format = source->format();
  plan.tensors = source_tensors(*source);
  for (const PlannedTensor& tensor : plan.tensors) plan.source_bytes += tensor.source_bytes;
  const PlannedModel planned = enter_passes(passes, plan.config, plan.tensors);
  std::erase_if(plan.tensors, [](const PlannedTensor& tensor) { return tensor.empty(); });
  plan_exports(recipe, *source, planned, plan);
  plan.measured = check_texts(recipe, plan.config, planned.rows_go);
  plan.gemm_flops = options.probe_speed ? measure_gemm_flops() : 0;
  plan.phases = plan_phases(recipe, passes, plan);
  add_totals(plan);
  plan.disk_bytes = disk_of(plan, passes);
  if (options.out) check_output(*options.out, plan.disk_bytes);
  return plan;
}

}  // namespace attar
