#include "compress/io/mapped_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "compress/io/os_failure.h"

namespace attar::io {
namespace {

// Whole pages around [offset, offset + length), clipped to the file.
void advise(std::span<const std::byte> all, std::uint64_t offset, std::uint64_t length,
            int advice) {
  if (offset >= all.size() || length == 0) return;
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t begin = offset / page * page;
  const std::uint64_t end = offset + std::min<std::uint64_t>(length, all.size() - offset);
  // Advice is advice: where the kernel refuses, the bytes stay as they are.
  (void)::madvise(const_cast<std::byte*>(all.data()) + begin, end - begin, advice);
}

std::uint64_t offset_in(std::span<const std::byte> all, std::span<const std::byte> part) {
  return part.empty() ? all.size() : static_cast<std::uint64_t>(part.data() - all.data());
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  constexpr std::string_view kWhere = "mapped file";
  const Descriptor file = open_for_reading(kWhere, path);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) throw_os_failure(kWhere, "examine", path, errno);
  const auto size = static_cast<std::size_t>(status.st_size);
  void* data = nullptr;
  if (size > 0) {
    data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (data == MAP_FAILED) throw_os_failure(kWhere, "map", path, errno);
  }
  return std::shared_ptr<const MappedFile>(
      new MappedFile(path, static_cast<const std::byte*>(data), size));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::done_with(std::uint64_t offset, std::uint64_t length) const {
  advise(bytes(), offset, length, MADV_DONTNEED);
}

void MappedFile::done_with(std::span<const std::byte> part) const {
  done_with(offset_in(bytes(), part), part.size());
}

void MappedFile::will_need(std::uint64_t offset, std::uint64_t length) const {
  advise(bytes(), offset, length, MADV_WILLNEED);
}

void MappedFile::will_need(std::span<const std::byte> part) const {
  will_need(offset_in(bytes(), part), part.size());
}

}  // namespace attar::io
