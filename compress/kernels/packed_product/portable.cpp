#include "compress/kernels/simd/portable.h"

#include "compress/kernels/packed_product/body.h"

namespace attar::kernels {

template int pack_panel_of<Portable>(const PackMatrix&, std::int64_t);
template void packed_product_task<Portable>(const PackedProduct&, const PackedTask&);
template void packed_finish_task<Portable>(const PackedFinish&, const PackedTask&);
template void transpose_rows<Portable>(const Transpose&);

}  // namespace attar::kernels
