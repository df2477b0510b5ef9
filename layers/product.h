#pragma once
// A matrix product with a workspace of its own. Internal to layers/.
#include "lathe/kernels/matmul.h"
#include "lathe/runtime/device.h"

namespace lathe {

/// Runs the product on the device's stream.
template <class Stream, class T, class C>
void multiply(Stream stream, Device& device, Matmul<T, C> product) {
  const Workspace workspace(device, matmul_workspace(stream, product));
  product.workspace = workspace.data();
  matmul(stream, product);
}

}  // namespace lathe
