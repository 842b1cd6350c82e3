// SPDX-License-Identifier: Apache-2.0
// The three matrix products of a linear layer from `width` to 3 * width features, the query-key-value
// projection of a block, and products with few rows, as generation has them: weights within a cache, and
// weights that come from memory every time.

#include "kernels/linear.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

enum class Product { forward, accumulate, input, weight };

template <class T>
void run(benchmark::State& state, Index rows, Index inputs, Index outputs, Product product) {
  auto const x = random_matrix<T>(rows, inputs), w = random_matrix<T>(outputs, inputs),
             y = random_matrix<T>(rows, outputs);
  auto const bias = random_vector<T>(outputs);
  measure(state, kernels::linear_cost<T>(rows, inputs, outputs), gemm_limit<T>(),
          [=](ExecSpace const& space) {
            switch (product) {
              case Product::forward:
                return kernels::linear_forward<T>(space, x, w, bias, y);
              case Product::accumulate:
                return kernels::linear_forward_accumulate<T>(space, x, w, y);
              case Product::input:
                return kernels::linear_backward_input<T>(space, y, w, x);
              case Product::weight:
                return kernels::linear_backward_weight<T>(space, y, x, w);
            }
          });
}

template <class T>
void add_products() {
  struct {
    char const* name;
    Product product;
  } const products[] = {{"linear_forward", Product::forward},
                        {"linear_forward_accumulate", Product::accumulate},
                        {"linear_backward_input", Product::input},
                        {"linear_backward_weight", Product::weight}};
  for (RowShape const& shape : row_shapes()) {
    for (auto const& [name, product] : products) {
      std::string const text = std::to_string(shape.rows) + "x" + std::to_string(shape.width) + "to" +
                               std::to_string(3 * shape.width);
      add(name, type_name<T>(), shape.group, text,
          [=, which = product](auto& s) { run<T>(s, shape.rows, shape.width, 3 * shape.width, which); });
    }
  }
}

template <class T>
void add_few_rows() {
  struct {
    char const* group;
    Index inputs, outputs;
  } const weights[] = {{"small", 1024, 1024}, {"long", 8192, 4096}};
  for (auto const& [group, inputs, outputs] : weights) {
    for (Index const rows : {1, 2, 4, 8, 16, 32, 64, 65}) {
      std::string const text =
          std::to_string(rows) + "x" + std::to_string(inputs) + "to" + std::to_string(outputs);
      add("linear_few_rows", type_name<T>(), group, text,
          [=, k = inputs, n = outputs](auto& s) { run<T>(s, rows, k, n, Product::forward); });
    }
  }
}

Registration const registration([] {
  add_products<float>();
  add_products<double>();
  add_few_rows<float>();
  add_few_rows<double>();
});

}  // namespace
}  // namespace strata::perf
