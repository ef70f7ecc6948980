#include "compress/kernels/simd/avx512.h"

#include "compress/kernels/packed_product/body.h"

namespace attar::kernels {

template int pack_panel_of<Avx512>(const PackMatrix&, std::int64_t);
template void packed_product_task<Avx512>(const PackedProduct&, const PackedTask&);
template void packed_finish_task<Avx512>(const PackedFinish&, const PackedTask&);
template void transpose_rows<Avx512>(const Transpose&);

}  // namespace attar::kernels
