#include "compress/kernels/simd/neon.h"

#include "compress/kernels/packed_product/body.h"

namespace attar::kernels {

template int pack_panel_of<Neon>(const PackMatrix&, std::int64_t);
template void packed_product_task<Neon>(const PackedProduct&, const PackedTask&);
template void packed_finish_task<Neon>(const PackedFinish&, const PackedTask&);
template void transpose_rows<Neon>(const Transpose&);

}  // namespace attar::kernels
