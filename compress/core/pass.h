// One step of a recipe and what it says about itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/model.h"

namespace attar {

// Layers that a pass must find in codes.
enum class NeededCodes {
  kNone,
  kAny,    // whoever rounded them
  kFresh,  // rounded in the same walk, so that the plain weights are still there
};

// What a pass asks of the pipeline, so a bad recipe fails before any work.
struct Needs {
  bool calibration = false;  // activations of the calibration text
  bool teacher = false;      // the unchanged starting model
  // Beside them those of the unchanged model (BlockStream's dense stream); needs calibration too.
  bool dense_stream = false;
  // And what the unchanged model's block makes of them, all at once.
  bool block_outputs = false;
  bool tokenizer = false;  // to read texts of its own
  // A pass on the whole model that takes statistics of those activations: its tokens have weights
  // where the recipe asks for them.
  bool statistics = false;
  NeededCodes codes = NeededCodes::kNone;
  // It repairs what neighbours before it have changed, and leaves other layers alone.
  bool losses = false;
};

// What a pass will do to one linear layer, known from headers alone.
struct PlannedLayer {
  std::int64_t block = 0;
  Role role = Role::kQuery;
  bool changes = false;
  std::string rule;  // the rule that decided: "layers '*'", "rules[1] 'mlp.down_proj'", "skip 'q'"
  std::string action;                        // "gptq W4 g64 asymmetric", "unchanged"
  std::optional<QuantScheme> scheme;         // of the layer after this pass, when it rounds
  std::vector<QuantScheme> candidates = {};  // in its place: one of these, which the run finds
  double expected_bits = 0;                  // a weight, with candidates
  bool compensates = false;    // rounding errors are moved onto columns still free, as GPTQ does
  bool recodes = false;        // other codes on the grid that it has
  bool keeps_zeros = false;    // what an earlier pass has set to 0 stays 0
  bool adds = false;           // a term beside what is there, whose codes and zeros stay
  bool plain_only = false;     // a layer in codes keeps them, on a grid like its own
  bool refuses_codes = false;  // a layer in codes is refused
  bool keeps_form = false;     // factors stay factors, and a term stays beside its base
  double parameters = 1;       // share of the layer's parameters that factors leave
  double density = 1;          // share of the weights that may be other than 0 after this pass
};

// What a pass will do to the rows of embedding and head.
struct PlannedRows {
  std::string action = {};                           // in words; empty: nothing
  bool fewer = false;                                // some of them go
  std::optional<QuantScheme> scheme = std::nullopt;  // after this pass, when it rounds them
  bool plain = false;                                // all are plain float32 after this pass
  bool plain_only = false;                           // but for those in codes, which keep them
  bool rounds = false;                               // plain ones, on grids that the run finds
};

// What happened to one linear layer.
struct LayerChange {
  std::string layer;
  std::string action;
  std::int64_t bytes_before = 0;
  std::int64_t bytes_after = 0;
  // |W x - W' x|^2 / |W x|^2 over the calibration tokens, and the same for plain rounding on the
  // same grid (0: not measured); of a block that learns as one, its own error after and before.
  double error = 0;
  double baseline_error = 0;
  double seconds = 0;
};

struct SkippedLayer {
  std::string layer;
  std::string reason;
};

// A numeric fallback or another thing that the user must be able to see afterwards.
struct PassEvent {
  std::string layer;
  std::string kind;  // "damping", "dead_columns", "nonfinite_tokens", "rtn_fallback", ...
  std::string text;
  bool fallback = false;  // counts for `strict` and the exit code
};

// A picture for the report: y over x, and single points with names. All y > 0.
struct Curve {
  struct Point {
    double x = 0, y = 0;
    std::string name = {};
    bool filled = false;
  };
  std::string title, x, y;  // y is drawn on a logarithmic axis
  std::vector<Point> line;
  std::vector<Point> marks;
};

struct PassReport {
  std::vector<LayerChange> changed;
  std::vector<SkippedLayer> skipped;
  std::vector<PassEvent> events;
  std::vector<Curve> curves = {};
};

void to_json(nlohmann::json& json, const PassReport& report);
void from_json(const nlohmann::json& json, PassReport& report);

// What surrounds a running pass.
struct RunContext {
  std::uint64_t seed = 0;
  bool strict = false;  // numeric fallbacks are refused (NumericRefusal) instead of recorded
  std::function<void(std::string_view layer)> progress = [](std::string_view) {};
  const std::atomic<bool>* stop = nullptr;  // set by a signal handler

  // Call at safe points inside long work: throws Stopped when a signal asked for it.
  void check_stop() const;
};

// What a pass of a recipe will do, and the model's shape before and after it.
struct PassPlan {
  std::vector<PlannedLayer> layers;
  PlannedRows rows;
  ModelConfig before;
  ModelConfig after;
};

// All layers of a model, changed in one way.
std::vector<PlannedLayer> plan_every_layer(const ModelConfig& config, const std::string& action);

// One step of a recipe. A pass is made from its options by the registry, plans from the model's
// shape alone, and runs block by block (compress/calibrate/blockwise.h) or on the whole model
// (model_pass.h there).
class Pass {
 public:
  virtual ~Pass() = default;
  virtual std::string_view name() const = 0;  // "quantize.gptq"
  virtual Needs needs() const { return {}; }
  virtual nlohmann::json options() const = 0;  // resolved, every key
  // Every linear layer of the model. Throws UsageError for a rule that matches nothing, DoesNotFit
  // for a width that the grid cannot divide.
  virtual std::vector<PlannedLayer> plan(const ModelConfig& config) const = 0;
  // Throws as plan does.
  virtual PlannedRows plan_rows(const ModelConfig& /*config*/) const { return {}; }
  // Told once, before anything runs: what later passes will do. A pass that prepares layers for
  // another one (quantize.awq before quantize.gptq) leaves the rounding of those to it.
  virtual void see_later(std::span<const PassPlan> /*plans*/) {}
  // The shape that the pass leaves. A pass that decides while it runs gives a shape of
  // about as many weights as it will leave, with widths_open where blocks may come out uneven.
  virtual ModelConfig shape_after(const ModelConfig& config) const { return config; }
  // Tokens that go through each block and back while it learns, about; calibration has `tokens` in
  // sequences of `length`. A pass that needs the tokenizer runs the head with them.
  virtual double learning_tokens(double /*tokens*/, std::int64_t /*length*/) const { return 0; }
  // Peak working memory of one block beside weights and activations, in bytes.
  virtual std::int64_t working_bytes(const ModelConfig& config) const = 0;
  // On disk while it runs, what it would go on from after an interruption.
  virtual std::int64_t state_bytes(const ModelConfig& /*config*/) const { return 0; }
};

// Makes the passes of a recipe know one another: plans each, tells each what comes later, and plans
// again. Throws UsageError when a pass would undo or round again what an earlier one has rounded.
std::vector<PassPlan> plan_passes(std::span<const std::unique_ptr<Pass>> passes,
                                  const ModelConfig& config);

// Passes by name.
class PassRegistry {
 public:
  struct Entry {
    std::string name;
    std::string summary;  // one sentence with its source paper
    std::vector<FieldHelp> fields;
    std::function<std::unique_ptr<Pass>(const nlohmann::json& options, std::string_view where)>
        make;
  };

  // PassType has `using Config`, `static constexpr kName, kSummary` and a constructor from Config.
  template <class PassType>
  void add() {
    using Config = typename PassType::Config;
    add({std::string(PassType::kName), std::string(PassType::kSummary), describe_fields<Config>(),
         [](const nlohmann::json& options, std::string_view where) {
           return std::make_unique<PassType>(read_fields<Config>(options, where));
         }});
  }
  void add(Entry entry);

  const std::vector<Entry>& entries() const { return entries_; }
  // Throws UsageError "unknown pass 'x'; known passes: ...".
  std::unique_ptr<Pass> make(const std::string& name, const nlohmann::json& options,
                             std::string_view where) const;

 private:
  std::vector<Entry> entries_;
};

}  // namespace attar
