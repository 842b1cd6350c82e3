// SPDX-License-Identifier: Apache-2.0
// Causal attention of many short sequences and of one long one, and of one query with a long past.

#include "kernels/attention.hpp"
#include "perf/perf.hpp"

namespace strata::perf {
namespace {

struct Case {
  char const* group;
  Index sequences, length, heads, head_dim;
  double dropout;
};

constexpr Case cases[] = {
    {"smoke", 2, 9, 2, 16, 0},    {"smoke", 1, 70, 2, 16, 0},   {"smoke", 1, 70, 2, 16, 0.1},
    {"small", 16, 8, 4, 32, 0},   {"small", 1, 128, 4, 32, 0},  {"local", 64, 8, 8, 64, 0},
    {"local", 64, 8, 8, 64, 0.1}, {"local", 1, 1024, 8, 64, 0}, {"local", 1, 1024, 8, 64, 0.1},
    {"long", 1024, 8, 8, 64, 0},  {"long", 1, 10000, 8, 64, 0},
};

template <class T>
struct Arrays {
  explicit Arrays(Case const& c)
      : shape{{c.sequences, c.length}, 0, c.heads, c.head_dim, true},
        q(random_matrix<T>(shape.queries.rows(), c.heads * c.head_dim)),
        key_values(random_matrix<T>(shape.queries.rows(), 2 * c.heads * c.head_dim)),
        o(random_matrix<T>(shape.queries.rows(), c.heads * c.head_dim)),
        log_sum(random_matrix<T>(shape.queries.rows(), c.heads)) {
    dropout.probability = c.dropout;
    dropout.seed = 1;
    dropout.length = dropout.stride = c.length;
  }
  void forward(ExecSpace const& space) const {
    kernels::attention_forward<T>(space, shape, q, {key_values, shape.queries.length}, dropout, o, log_sum);
  }

  kernels::AttentionShape shape;
  kernels::Dropout dropout;
  Matrix<T> q, key_values, o, log_sum;
};

template <class T>
void forward(benchmark::State& state, Case const& c) {
  Arrays<T> const a(c);
  measure(state, kernels::attention_forward_cost<T>(a.shape), gemm_limit<T>(),
          [=](ExecSpace const& space) { a.forward(space); });
}

template <class T>
void backward(benchmark::State& state, Case const& c) {
  Arrays<T> const a(c);
  Index const rows = a.shape.queries.rows(), width = c.heads * c.head_dim;
  auto const dout = random_matrix<T>(rows, width), dq = random_matrix<T>(rows, width),
             dkey_values = random_matrix<T>(rows, 2 * width);
  auto const workspace = random_vector<T>(kernels::attention_workspace(a.shape));
  a.forward(ExecSpace());
  measure(state, kernels::attention_backward_cost<T>(a.shape), gemm_limit<T>(), [=](ExecSpace const& space) {
    Index const capacity = a.shape.queries.length;
    kernels::attention_backward<T>(space, a.shape, a.q, {a.key_values, capacity}, a.o, a.log_sum, dout,
                                   a.dropout, dq, {dkey_values, capacity}, workspace);
  });
}

struct Past {
  char const* group;
  Index sequences, keys;
};

constexpr Past pasts[] = {
    {"smoke", 2, 70}, {"small", 1, 1024}, {"small", 32, 1024}, {"local", 1, 65536}, {"long", 1, 1 << 20}};

template <class T>
void one_query(benchmark::State& state, Past const& past) {
  kernels::AttentionShape const shape{{past.sequences, 1}, past.keys - 1, 8, 64, true};
  Index const width = shape.heads * shape.head_dim;
  auto const q = random_matrix<T>(past.sequences, width), o = random_matrix<T>(past.sequences, width),
             log_sum = random_matrix<T>(past.sequences, shape.heads),
             key_values = random_matrix<T>(past.sequences * past.keys, 2 * width);
  auto const workspace = random_vector<T>(kernels::attention_forward_workspace(shape));
  measure(state, kernels::attention_forward_cost<T>(shape), gemm_limit<T>(), [=](ExecSpace const& space) {
    kernels::attention_forward<T>(space, shape, q, {key_values, past.keys}, {}, o, log_sum, workspace);
  });
}

template <class T>
void add_one_query() {
  for (Past const& past : pasts) {
    std::string const shape = std::to_string(past.sequences) + "x" + std::to_string(past.keys) + "_heads8x64";
    add("attention_one_query", type_name<T>(), past.group, shape, [past](auto& s) { one_query<T>(s, past); });
  }
}

template <class T>
void add_attention() {
  for (Case const& c : cases) {
    auto const text = [](Index n) { return std::to_string(n); };
    std::string const shape =
        text(c.sequences) + "x" + text(c.length) + "_heads" + text(c.heads) + "x" + text(c.head_dim);
    std::string const suffix = c.dropout > 0 ? "_dropout" : "";
    add("attention_forward" + suffix, type_name<T>(), c.group, shape, [c](auto& s) { forward<T>(s, c); });
    add("attention_backward" + suffix, type_name<T>(), c.group, shape, [c](auto& s) { backward<T>(s, c); });
  }
}

Registration const registration([] {
  add_attention<float>();
  add_attention<double>();
  add_one_query<float>();
  add_one_query<double>();
});

}  // namespace
}  // namespace strata::perf
