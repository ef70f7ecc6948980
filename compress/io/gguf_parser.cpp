#include "compress/io/gguf_parser.h"

#include <bit>
#include <cstring>
#include <utility>

namespace attar::io {
namespace {

static_assert(std::endian::native == std::endian::little, "files are mapped as they are");

constexpr std::uint64_t kMaxCount = 1'000'000;  // of tensors, of entries
constexpr std::uint64_t kMaxKeyBytes = 65535;
constexpr std::uint64_t kMaxTensorNameBytes = 63;
constexpr std::uint64_t kMaxStringBytes = std::uint64_t{1} << 30;
constexpr std::uint32_t kMaxRank = 4;
constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 20;
constexpr std::uint64_t kMinEntryBytes = 8 + 1 + 4 + 1;           // key, type, value
constexpr std::uint64_t kMinTensorBytes = 8 + 1 + 4 + 0 + 4 + 8;  // name, rank, type, offset

// Bytes of one value; 0 for strings and arrays.
std::uint64_t fixed_size(GgufValueType type) {
  switch (type) {
    case GgufValueType::u8:
    case GgufValueType::i8:
    case GgufValueType::boolean:
      return 1;
    case GgufValueType::u16:
    case GgufValueType::i16:
      return 2;
    case GgufValueType::u32:
    case GgufValueType::i32:
    case GgufValueType::f32:
      return 4;
    case GgufValueType::u64:
    case GgufValueType::i64:
    case GgufValueType::f64:
      return 8;
    case GgufValueType::string:
    case GgufValueType::array:
      return 0;
  }
  return 0;
}

std::string known_types() {
  std::string names;
  for (const GgmlTypeInfo& row : ggml_types()) {
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  return names;
}

// Keys and names come from outside: shortened and freed of control characters for messages.
std::string shown(std::string_view text) {
  std::string result = "'";
  for (const char character : text.substr(0, 100)) {
    const auto value = static_cast<unsigned char>(character);
    result += value < 0x20 || value >= 0x7F ? '?' : character;
  }
  return result + (text.size() > 100 ? "...'" : "'");
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

std::span<const std::byte> ByteCursor::take(std::uint64_t length, std::string_view what) {
  check(length <= left(), what, " needs ", length, " bytes, the file has ", left(),
        " left; it is cut off or broken, download it again");
  const auto taken = bytes_.subspan(offset_, length);
  offset_ += length;
  return taken;
}

template <class T>
T ByteCursor::number(std::string_view what) {
  T value;
  std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
  return value;
}

std::string_view ByteCursor::string(std::string_view what, std::uint64_t max_bytes) {
  const auto length = number<std::uint64_t>(what);
  check(length <= max_bytes, what, " of ", length, " bytes is over the limit of ", max_bytes);
  const auto bytes = take(length, what);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

GgufParser::GgufParser(std::shared_ptr<const MappedFile> file)
    : cursor_(file->bytes(), file->path().string()) {
  result_.file_ = std::move(file);
}

GgufFile GgufParser::parse(std::shared_ptr<const MappedFile> file) {
  GgufParser parser(std::move(file));
  parser.read_prefix();
  for (std::uint64_t i = 0; i < parser.entry_count_; ++i) parser.read_entry();
  parser.read_alignment();
  std::uint64_t expected_offset = 0;
  for (std::uint64_t i = 0; i < parser.tensor_count_; ++i) parser.read_tensor(expected_offset);
  parser.attach_bytes();
  return std::move(parser.result_);
}

void GgufParser::read_prefix() {
  const auto magic = cursor_.take(4, "the magic number");
  require(std::memcmp(magic.data(), "GGUF", 4) == 0, cursor_.where(),
          "is no GGUF file: it does not start with 'GGUF'");
  const auto version = cursor_.number<std::uint32_t>("the version");
  require(version != 0x02000000u && version != 0x03000000u, cursor_.where(),
          "is a big-endian GGUF file; attar reads little-endian ones");
  require(version == 2 || version == 3, cursor_.where(), "is GGUF version ", version,
          "; attar reads 2 and 3");
  result_.version_ = version;
  tensor_count_ = cursor_.number<std::uint64_t>("the tensor count");
  entry_count_ = cursor_.number<std::uint64_t>("the metadata count");
  // Checked before anything is allocated: each needs some bytes of what is left.
  cursor_.check(entry_count_ <= kMaxCount && entry_count_ <= cursor_.left() / kMinEntryBytes,
                "the file cannot hold ", entry_count_, " metadata entries");
  cursor_.check(tensor_count_ <= kMaxCount && tensor_count_ <= cursor_.left() / kMinTensorBytes,
                "the file cannot hold ", tensor_count_, " tensors");
}

void GgufParser::read_entry() {
  GgufEntry entry;
  entry.key = cursor_.string("a metadata key", kMaxKeyBytes);
  cursor_.check(!entry.key.empty() && entry.key.find('\0') == entry.key.npos,
                "a metadata key is empty or holds a NUL byte");
  const auto type = cursor_.number<std::uint32_t>("a metadata type");
  cursor_.check(type <= static_cast<std::uint32_t>(GgufValueType::f64), "key ", shown(entry.key),
                " has the unknown value type ", type);
  entry.type = static_cast<GgufValueType>(type);
  const std::uint64_t begin = cursor_.offset();
  entry.value = read_value(entry.type, entry.key);
  entry.raw = result_.file_->bytes().subspan(begin, cursor_.offset() - begin);
  const bool fresh = result_.entry_index_.emplace(entry.key, result_.entries_.size()).second;
  cursor_.check(fresh, "the key ", shown(entry.key), " stands twice");
  result_.entries_.push_back(std::move(entry));
}

GgufValue GgufParser::read_value(GgufValueType type, std::string_view key) {
  const std::string what = "the value of " + shown(key);
  switch (type) {
    case GgufValueType::u8:
      return cursor_.number<std::uint8_t>(what);
    case GgufValueType::i8:
      return cursor_.number<std::int8_t>(what);
    case GgufValueType::u16:
      return cursor_.number<std::uint16_t>(what);
    case GgufValueType::i16:
      return cursor_.number<std::int16_t>(what);
    case GgufValueType::u32:
      return cursor_.number<std::uint32_t>(what);
    case GgufValueType::i32:
      return cursor_.number<std::int32_t>(what);
    case GgufValueType::f32:
      return cursor_.number<float>(what);
    case GgufValueType::boolean: {
      const auto value = cursor_.number<std::uint8_t>(what);
      cursor_.check(value <= 1, what, " must be 0 or 1 as a bool, got ", int{value});
      return value == 1;
    }
    case GgufValueType::string:
      return cursor_.string(what, kMaxStringBytes);
    case GgufValueType::array:
      return read_array(key);
    case GgufValueType::u64:
      return cursor_.number<std::uint64_t>(what);
    case GgufValueType::i64:
      return cursor_.number<std::int64_t>(what);
    case GgufValueType::f64:
      return cursor_.number<double>(what);
  }
  return std::uint8_t{0};  // all enumerators return above
}

GgufArray GgufParser::read_array(std::string_view key) {
  const std::string what = "the array " + shown(key);
  const auto element = cursor_.number<std::uint32_t>(what);
  cursor_.check(element <= static_cast<std::uint32_t>(GgufValueType::f64), what,
                " has the unknown element type ", element);
  GgufArray array;
  array.element = static_cast<GgufValueType>(element);
  cursor_.check(array.element != GgufValueType::array, what,
                " holds arrays, which attar does not read");
  array.count = cursor_.number<std::uint64_t>(what);
  const bool strings = array.element == GgufValueType::string;
  const std::uint64_t least = strings ? 8 : fixed_size(array.element);
  cursor_.check(array.count <= cursor_.left() / least, what, " cannot hold ", array.count,
                " elements: the file has ", cursor_.left(), " bytes left");
  const std::uint64_t begin = cursor_.offset();
  if (strings) {
    array.strings.reserve(array.count);
    for (std::uint64_t i = 0; i < array.count; ++i) {
      array.strings.push_back(cursor_.string(what, kMaxStringBytes));
    }
  } else {
    cursor_.take(array.count * least, what);
  }
  array.bytes = result_.file_->bytes().subspan(begin, cursor_.offset() - begin);
  return array;
}

void GgufParser::read_alignment() {
  const GgufEntry* entry = result_.find("general.alignment");
  if (entry == nullptr) return;
  const auto* value = std::get_if<std::uint32_t>(&entry->value);
  const bool valid = value != nullptr && std::has_single_bit(*value) && *value <= kMaxAlignment;
  require(valid, cursor_.where(), "general.alignment must be a power of two of at most ",
          kMaxAlignment, ", stored as u32");
  result_.alignment_ = *value;
}

void GgufParser::read_tensor(std::uint64_t& expected_offset) {
  GgufTensor tensor;
  tensor.name = cursor_.string("a tensor name", kMaxTensorNameBytes);
  const std::string what = "tensor " + shown(tensor.name);
  cursor_.check(!tensor.name.empty() && tensor.name.find('\0') == tensor.name.npos,
                "a tensor name is empty or holds a NUL byte");
  const auto rank = cursor_.number<std::uint32_t>(what);
  cursor_.check(rank <= kMaxRank, what, " has rank ", rank, ", at most ", kMaxRank);
  for (std::uint32_t i = 0; i < rank; ++i) {
    const auto extent = cursor_.number<std::uint64_t>(what);
    cursor_.check(extent > 0 && extent < std::uint64_t{1} << 62, what, " has the extent ", extent);
    tensor.ne.push_back(static_cast<std::int64_t>(extent));
  }
  const auto type = cursor_.number<std::uint32_t>(what);
  const GgmlTypeInfo* info = find_ggml_type(type);
  cursor_.check(info != nullptr, what, " has the type number ", type,
                ", which attar does not know; known are ", info == nullptr ? known_types() : "",
                ": convert the file to F16 or Q8_0");
  tensor.type = info->type;
  const auto size = ggml_tensor_bytes(tensor.type, tensor.ne);
  cursor_.check(size.has_value(), what, " of type ", info->name, " needs ne[0] as a multiple of ",
                info->elements,
                " and a size within 63 bits, got ne[0]=", tensor.ne.empty() ? 1 : tensor.ne[0]);
  const auto offset = cursor_.number<std::uint64_t>(what);
  cursor_.check(offset == expected_offset, what, " has the data offset ", offset, ", expected ",
                expected_offset, ": offsets must follow the order of the tensors");
  cursor_.check(*size <= result_.file_->size(), what, " needs ", *size,
                " bytes, more than the file has; it is cut off, download it again");
  // No overflow: at most 1e6 tensors of at most the file's size, but check all the same.
  const bool fits = !__builtin_add_overflow(expected_offset, round_up(*size, result_.alignment_),
                                            &expected_offset);
  cursor_.check(fits, what, " makes the data overflow 64 bits");
  const bool fresh = result_.tensor_index_.emplace(tensor.name, result_.tensors_.size()).second;
  cursor_.check(fresh, "the ", what, " stands twice");
  tensor.file = result_.file_;
  result_.tensors_.push_back(std::move(tensor));
  offsets_.push_back(offset);
}

void GgufParser::attach_bytes() {
  const std::span<const std::byte> all = result_.file_->bytes();
  result_.data_offset_ = round_up(cursor_.offset(), result_.alignment_);
  for (std::size_t i = 0; i < result_.tensors_.size(); ++i) {
    GgufTensor& tensor = result_.tensors_[i];
    const std::uint64_t size = *ggml_tensor_bytes(tensor.type, tensor.ne);
    const bool inside = result_.data_offset_ <= all.size() &&
                        offsets_[i] <= all.size() - result_.data_offset_ &&
                        size <= all.size() - result_.data_offset_ - offsets_[i];
    require(inside, cursor_.where(), "tensor ", shown(tensor.name), " ends at byte ",
            result_.data_offset_ + offsets_[i] + size, ", the file at ", all.size(),
            "; it is cut off, download it again");
    tensor.bytes = all.subspan(result_.data_offset_ + offsets_[i], size);
  }
}

}  // namespace attar::io
