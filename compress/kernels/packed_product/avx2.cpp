#include "compress/kernels/simd/avx2.h"

#include "compress/kernels/packed_product/body.h"

namespace attar::kernels {

template int pack_panel_of<Avx2>(const PackMatrix&, std::int64_t);
template void packed_product_task<Avx2>(const PackedProduct&, const PackedTask&);
template void packed_finish_task<Avx2>(const PackedFinish&, const PackedTask&);
template void transpose_rows<Avx2>(const Transpose&);

}  // namespace attar::kernels
