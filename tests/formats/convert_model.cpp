// Opens a model, rounds some of its layers, exports it: what pytest drives to compare our files
// with those of the programs they are for.
//
//   convert_model SRC DST FORMAT [type=.. embedding_type=.. requantize=1 two_bits=1 replace=1
//       max_shard_bytes=N name=..] [quantize=BITS:GROUP:KIND[@PART] ...] [dense=DIR] [plan=1]
//
// quantize rounds the layers whose name contains PART; dense=DIR also exports the model as float32,
// to say what attar computes with. plan=1 writes nothing. Prints the report as JSON.

#include <iostream>
#include <nlohmann/json.hpp>

#include "compress/core/errors.h"
#include "compress/formats/export.h"
#include "compress/formats/model_file.h"
#include "tests/formats/round_to_nearest.h"

namespace attar {
namespace {

struct Rounding {
  QuantScheme scheme;
  std::string part;
};

Rounding rounding_from(const std::string& text) {
  Rounding rounding;
  const std::size_t at = text.find('@');
  if (at != std::string::npos) rounding.part = text.substr(at + 1);
  std::istringstream fields(text.substr(0, at));
  char colon = 0;
  std::string kind;
  fields >> rounding.scheme.bits >> colon >> rounding.scheme.group_size >> colon >> kind;
  for (const ZeroPoint candidate :
       {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum}) {
    if (to_string(candidate) == kind) rounding.scheme.zero_point = candidate;
  }
  return rounding;
}

nlohmann::ordered_json to_json(const std::vector<TensorExport>& tensors) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const TensorExport& tensor : tensors) {
    list.push_back({{"tensor", tensor.tensor},
                    {"layer", tensor.layer},
                    {"type", tensor.type},
                    {"how", tensor.how},
                    {"bytes", tensor.bytes},
                    {"max_difference", tensor.max_difference}});
  }
  return list;
}

void run(const std::vector<std::string>& arguments) {
  require<UsageError>(arguments.size() >= 3, "convert_model", "needs SRC DST FORMAT");
  ExportOptions options;
  options.format = export_format_from(arguments[2]);
  std::vector<Rounding> roundings;
  std::string dense_folder;
  bool plan = false;
  for (std::size_t i = 3; i < arguments.size(); ++i) {
    const std::size_t equals = arguments[i].find('=');
    const std::string key = arguments[i].substr(0, equals), value = arguments[i].substr(equals + 1);
    if (key == "type") options.type = value;
    if (key == "embedding_type") options.embedding_type = value;
    if (key == "requantize") options.requantize = true;
    if (key == "two_bits") options.two_bits = true;
    if (key == "replace") options.replace = true;
    if (key == "max_shard_bytes") options.max_shard_bytes = std::stoull(value);
    if (key == "name") options.name = value;
    if (key == "quantize") roundings.push_back(rounding_from(value));
    if (key == "dense") dense_folder = value;
    if (key == "plan") plan = true;
  }
  Model model(open_model(arguments[0]));
  PlannedLayers planned;
  for (std::int64_t i = 0; i < model.config().layers && !roundings.empty(); ++i) {
    Block block = model.block(i);
    for (const Role role : kRoles) {
      for (const Rounding& rounding : roundings) {
        if (layer_name(i, role).find(rounding.part) == std::string::npos) continue;
        planned[layer_name(i, role)] = rounding.scheme;
        if (!plan) {
          const at::Tensor values = dense(block[role].weight);
          block[role].weight = testing::round_to_nearest(values, rounding.scheme);
        }
      }
    }
    if (!plan) model.put_block(i, block);
  }
  const ExportPlan expected = check_export(model.source(), {model.config(), planned}, options);
  if (plan) {
    std::cout << nlohmann::ordered_json{{"bytes", expected.bytes},
                                        {"notes", expected.notes},
                                        {"tensors", to_json(expected.tensors)}};
    return;
  }
  const ExportReport report = export_model(model, arguments[1], options);
  require(report.bytes == expected.bytes, "convert_model", "planned ", expected.bytes,
          " bytes, wrote ", report.bytes);
  if (!dense_folder.empty()) {
    ExportOptions dense;
    dense.type = "f32";
    export_model(model, dense_folder, dense);
  }
  std::cout << nlohmann::ordered_json{{"bytes", report.bytes},
                                      {"max_rounding", report.max_rounding},
                                      {"notes", report.notes},
                                      {"tensors", to_json(report.tensors)}};
}

}  // namespace
}  // namespace attar

int main(int argc, char** argv) {
  try {
    attar::run({argv + 1, argv + argc});
    return 0;
  } catch (const attar::UsageError& error) {
    std::cerr << error.what() << '\n';
    return 2;
  } catch (const attar::BadInput& error) {
    std::cerr << error.what() << '\n';
    return 3;
  } catch (const attar::DoesNotFit& error) {
    std::cerr << error.what() << '\n';
    return 4;
  } catch (const attar::NumericRefusal& error) {
    std::cerr << error.what() << '\n';
    return 5;
  } catch (const attar::IoError& error) {
    std::cerr << error.what() << '\n';
    return 7;
  }
}
