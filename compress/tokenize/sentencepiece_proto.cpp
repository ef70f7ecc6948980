// Reads ModelProto of sentencepiece without a protobuf library: a message is a list
// of (field number << 3 | wire type, value); unknown fields are skipped.
#include <bit>
#include <cstring>

#include "compress/core/errors.h"
#include "compress/tokenize/sentencepiece.h"
#include "compress/tokenize/trim.h"

namespace attar::tokenize {
namespace {

// One message; walks over its fields and never reads beyond it.
class Message {
 public:
  Message(std::string_view bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    began_ = at_;
    const std::uint64_t key = varint();
    field = key >> 3;
    wire_ = static_cast<int>(key & 7);
    switch (wire_) {
      case 0:
        number_ = varint();
        return true;
      case 1:
        payload_ = take(8);
        return true;
      case 2:
        payload_ = take(varint());
        return true;
      case 5:
        payload_ = take(4);
        return true;
      default:
        throw BadInput(message(where_, "is no sentencepiece model: wire type ", wire_,
                               " before byte ", at_, " of a message"));
    }
  }

  std::uint64_t field = 0;

  std::string_view whole() const { return bytes_.substr(began_, at_ - began_); }  // with its key
  std::string_view text() const { return need(2), payload_; }
  Message sub() const { return need(2), Message(payload_, where_); }
  std::uint64_t number() const { return need(0), number_; }
  bool flag() const { return number() != 0; }
  float real() const {
    need(5);
    std::uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) {
      bits |= std::uint32_t{static_cast<unsigned char>(payload_[i])} << (8 * i);
    }
    return std::bit_cast<float>(bits);
  }

 private:
  void need(int wire) const {
    require(wire_ == wire, where_, "is no sentencepiece model: field ", field, " has wire type ",
            wire_, ", expected ", wire);
  }

  std::string_view take(std::uint64_t count) {
    require(count <= bytes_.size() - at_, where_, "is cut off: a field of ", count, " bytes, ",
            bytes_.size() - at_, " are left");
    const std::string_view part = bytes_.substr(at_, count);
    at_ += count;
    return part;
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    throw BadInput(message(where_, "is no sentencepiece model: a number has over 64 bits"));
  }

  std::string_view bytes_;
  std::string_view where_;
  std::size_t at_ = 0;
  std::size_t began_ = 0;  // of the field
  int wire_ = 0;
  std::uint64_t number_ = 0;
  std::string_view payload_;
};

ScoredPiece read_piece(Message fields, std::size_t id, std::string_view where) {
  ScoredPiece piece;
  while (fields.next()) {
    if (fields.field == 1) piece.text = fields.text();
    if (fields.field == 2) piece.score = fields.real();
    if (fields.field == 3) {
      const std::uint64_t type = fields.number();
      require(type >= 1 && type <= 6, where, "piece ", id, " has type ", type,
              ", known are 1 to 6");
      piece.type = static_cast<PieceType>(type);
    }
  }
  return piece;
}

void read_trainer(Message fields, std::string_view where, SentencePieceModel& model) {
  constexpr std::string_view kTypes[] = {"?", "Unigram", "BPE", "Word", "Char"};
  std::uint64_t type = 1;  // the default of the format
  while (fields.next()) {
    if (fields.field == 3) type = fields.number();
    if (fields.field == 24) model.treat_whitespace_as_suffix = fields.flag();
    if (fields.field == 35) model.byte_fallback = fields.flag();
    if (fields.field == 44) model.unknown_surface = fields.text();
  }
  require(type == 2, where,
          "trainer_spec.model_type: attar reads sentencepiece models of type BPE, ", "this one is ",
          type < 5 ? kTypes[type] : kTypes[0], " (", type, ")");
}

void read_normalizer_spec(Message fields, std::string_view where, SentencePieceModel& model) {
  while (fields.next()) {
    if (fields.field == 2) model.charsmap = Charsmap(fields.text(), where);
    if (fields.field == 3) model.add_dummy_prefix = fields.flag();
    if (fields.field == 4) model.remove_extra_whitespaces = fields.flag();
    if (fields.field == 5) model.escape_whitespaces = fields.flag();
  }
}

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

// trainer_spec with the number of pieces and the ids of special ones as they are now.
std::string trim_trainer(Message fields, KeptTokens kept) {
  constexpr std::uint64_t kVocabularySize = 4, kFirstId = 40, kLastId = 43;
  std::string trimmed;
  while (fields.next()) {
    const bool id = fields.field >= kFirstId && fields.field <= kLastId;
    if (!id && fields.field != kVocabularySize) {
      trimmed += fields.whole();
      continue;
    }
    append_varint(trimmed, fields.field << 3);
    const auto was = static_cast<std::int64_t>(fields.number());
    const std::int64_t now = id ? place_of(kept, was).value_or(-1) : std::ssize(kept);
    append_varint(trimmed, static_cast<std::uint64_t>(now));
  }
  return trimmed;
}

}  // namespace

SentencePieceModel read_sentencepiece(std::span<const std::byte> bytes, std::string_view where) {
  SentencePieceModel model;
  model.remove_extra_whitespaces = true;  // the default of the format
  bool trainer = false;
  Message fields({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, where);
  while (fields.next()) {
    if (fields.field == 1) {
      model.pieces.push_back(read_piece(fields.sub(), model.pieces.size(), where));
    } else if (fields.field == 2) {
      trainer = true;
      read_trainer(fields.sub(), where, model);
    } else if (fields.field == 3) {
      read_normalizer_spec(fields.sub(), where, model);
    }
  }
  require(trainer && !model.pieces.empty(), where,
          "is no sentencepiece model: it has no pieces or no trainer_spec");
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const ScoredPiece& piece = model.pieces[id];
    const auto number = static_cast<TokenId>(id);
    if (piece.type == PieceType::unknown) model.special.unknown = number;
    if (piece.type != PieceType::control) continue;
    if (piece.text == "<s>") model.special.bos = number;
    if (piece.text == "</s>") model.special.eos = number;
    if (piece.text == "<pad>") model.special.padding = number;
  }
  model.add_bos = model.special.bos.has_value();
  return model;
}

}  // namespace attar::tokenize

namespace attar {

std::string trim_sentencepiece(std::string_view bytes, KeptTokens kept, std::string_view where) {
  tokenize::Message fields(bytes, where);
  std::string trimmed;
  for (std::int64_t piece = 0; fields.next();) {
    if (fields.field == 1) {
      if (place_of(kept, piece++)) trimmed += fields.whole();
    } else if (fields.field == 2) {
      const std::string trainer = tokenize::trim_trainer(fields.sub(), kept);
      tokenize::append_varint(trimmed, 2 << 3 | 2);
      tokenize::append_varint(trimmed, trainer.size());
      trimmed += trainer;
    } else {
      trimmed += fields.whole();
    }
  }
  return trimmed;
}

}  // namespace attar
