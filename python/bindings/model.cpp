// The only file that takes or gives tensors.
#include <ATen/ops/isfinite.h>
#include <torch/csrc/utils/pybind.h>

#include <limits>
#include <mutex>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/pipeline/model_listing.h"
#include "compress/runtime/transformer.h"
#include "eval/encoding.h"
#include "python/bindings/bindings.h"
#include "python/bindings/interruption.h"

namespace attar::bindings {
namespace {

namespace py = pybind11;

std::vector<TokenId> ids_of(const at::Tensor& ids) {
  require<UsageError>(ids.dim() == 1 && ids.numel() > 0 && ids.scalar_type() == at::kLong, "ids",
                      "must be a tensor [T] of int64 with at least one token, got ", ids.dim(),
                      " dimensions of ", ids.scalar_type());
  const at::Tensor flat = ids.cpu().contiguous();
  const auto* data = flat.const_data_ptr<std::int64_t>();
  std::vector<TokenId> tokens;
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    require<UsageError>(data[i] >= 0 && data[i] <= std::numeric_limits<TokenId>::max(), "ids",
                        "token ", i, " is ", data[i]);
    tokens.push_back(static_cast<TokenId>(data[i]));
  }
  return tokens;
}

// A model file, its tokenizer if it has one, and, from the first question on, its weights. The
// weights are held in one form: what `logits` needs, or what `generate` needs.
class OpenModel {
 public:
  explicit OpenModel(const std::string& path) : model_(open_model(path)), given_(path) {}

  std::string path() const { return model_.source().path(); }
  std::string format() const { return model_.source().format(); }
  std::string sha256() const { return model_.source().sha256(); }
  std::string config() const { return json_text(config_listing(model_.config())); }
  // Read when it is asked for: a model may have one that attar does not read.
  std::shared_ptr<const Tokenizer> tokenizer() const {
    const std::scoped_lock lock(tokenizer_mutex_);
    if (!tokenizer_ && has_tokenizer(given_)) tokenizer_ = load_model_tokenizer(given_);
    return tokenizer_;
  }

  std::string tensors() const { return json_text(tensor_listing(model_.source())); }

  at::Tensor logits(const at::Tensor& ids) {
    const std::vector<TokenId> tokens = ids_of(ids);
    const auto most = static_cast<std::size_t>(model_.config().max_positions);
    require<UsageError>(tokens.size() <= most, "ids", tokens.size(), " tokens exceed the model's ",
                        most, " positions");
    const std::scoped_lock lock(mutex_);
    language_.reset();
    if (!transformer_) transformer_ = std::make_unique<Transformer>(model_);
    Transformer::State state = transformer_->start();
    const at::Tensor logits = transformer_->head().logits(transformer_->extend(state, tokens));
    require<NumericRefusal>(at::isfinite(logits).all().item<bool>(), path(),
                            "some logits are NaN or infinite; the weights are damaged");
    return logits;
  }

  std::vector<TokenId> generate(const at::Tensor& ids, std::int64_t max_new_tokens,
                                const std::vector<TokenId>& stop_ids, const std::string& runtime,
                                std::int64_t kv_bits) {
    const std::vector<TokenId> prompt = ids_of(ids);
    const auto room = model_.config().max_positions - static_cast<std::int64_t>(prompt.size());
    require<UsageError>(room > 0 && max_new_tokens > 0, "generate", "the prompt has ",
                        prompt.size(), " tokens, the model holds ", model_.config().max_positions,
                        ", and ", max_new_tokens, " new ones are asked for");
    const Engine engine = engine_of(runtime, kv_bits);
    const std::scoped_lock lock(mutex_);
    transformer_.reset();
    if (const auto asked = std::pair(runtime, kv_bits); !language_ || asked != language_is_) {
      language_.reset();
      language_ = engine.make_language_model(model_, tokenizer(), engine.cache);
      language_is_ = asked;
    }
    return Interruption::guard([&](Interruption& interruption) {
      const RunContext context = interruption.context();
      const auto stop = [&](std::span<const TokenId>) {
        interruption.look();
        context.check_stop();
        return false;
      };
      return language_->generate_greedy(prompt, std::min(room, max_new_tokens), stop_ids, stop).ids;
    });
  }

 private:
  const Model model_;
  const std::string given_;
  mutable std::mutex tokenizer_mutex_;
  mutable std::shared_ptr<const Tokenizer> tokenizer_;
  std::mutex mutex_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<LanguageModel> language_;
  std::pair<std::string, std::int64_t> language_is_;  // its runtime, and bits of keys and values
};

void bind_tokenizer(py::module_& module) {
  const py::call_guard<py::gil_scoped_release> free_gil;
  py::class_<Tokenizer, std::shared_ptr<Tokenizer>>(
      module, "Tokenizer", "Text to token ids and back, as the model's files say.")
      .def(
          "encode",
          [](const Tokenizer& self, const std::string& text, bool add_special) {
            return self.encode(text, add_special);
          },
          free_gil, py::arg("text"), py::kw_only(), py::arg("add_special") = false,
          "Token ids of `text`; with `add_special` also what the file wants around every text.\n\n"
          ">>> attar.open('models/smollm2.gguf').tokenizer.encode('Hi there')\n"
          "[26843, 665]")
      .def(
          "encode_prompt",
          [](const Tokenizer& self, const std::string& text) {
            return eval::encode_prompt(self, text);
          },
          free_gil, py::arg("text"),
          "Token ids of a text as the model expects it: with BOS where the tokenizer adds one.")
      .def(
          "decode",
          [](const Tokenizer& self, const std::vector<TokenId>& ids, bool skip_special) {
            return self.decode(ids, skip_special);
          },
          free_gil, py::arg("ids"), py::kw_only(), py::arg("skip_special") = true,
          "Text of the whole sequence; ids outside of the vocabulary are left out.")
      .def_property_readonly("vocabulary_size", &Tokenizer::vocabulary_size)
      .def_property_readonly("bos", &Tokenizer::bos)
      .def_property_readonly("eos", &Tokenizer::eos)
      .def_property_readonly("ends", &Tokenizer::ends, "What ends an answer, the EOS first.")
      .def_property_readonly("chat_template", &Tokenizer::chat_template);
}

}  // namespace

void bind_model(py::module_& module) {
  const py::call_guard<py::gil_scoped_release> free_gil;
  bind_tokenizer(module);
  py::class_<OpenModel>(module, "OpenModel")
      .def(py::init<const std::string&>(), free_gil, py::arg("path"))
      .def_property_readonly("path", &OpenModel::path)
      .def_property_readonly("format", &OpenModel::format)
      .def_property_readonly("config", &OpenModel::config)
      .def_property_readonly("tokenizer",
                             [](const OpenModel& self) {
                               return std::const_pointer_cast<Tokenizer>(self.tokenizer());
                             })
      .def("sha256", &OpenModel::sha256, free_gil)
      .def("tensors", &OpenModel::tensors, free_gil)
      .def("logits", &OpenModel::logits, free_gil, py::arg("ids"))
      .def("generate", &OpenModel::generate, free_gil, py::arg("ids"), py::kw_only(),
           py::arg("max_new_tokens"), py::arg("stop_ids"), py::arg("runtime"), py::arg("kv_bits"));
}

}  // namespace attar::bindings
