// SPDX-License-Identifier: Apache-2.0
#pragma once
// A parity fixture: parameters, inputs, outputs and gradients that one of the original Python packages
// computed in float64, in an HDF5 file. doc/developer_guide.md describes the layout.

#include <cstdint>
#include <string>
#include <vector>

#include "io/hdf5.hpp"
#include "model/parameters.hpp"

namespace strata::parity {

using model::Index;

/// What one comparison found, as a fraction of what is allowed and as a relative error.
struct Worst {
  double relative = 0;  ///< worst absolute error / largest magnitude of the reference
  double bound = 0;     ///< worst absolute error / allowed error; above 1 is a failure
  std::string where;    ///< array with the worst bound

  void add(std::string const& name, std::vector<double> const& got, std::vector<double> const& wanted,
           double allowed);
  void add(Worst const& other);
};

/// Largest magnitude.
double largest(std::vector<double> const& values);

/// Errors of a file in one precision.
struct Report {
  Worst logits, loss, gradients;
  bool dependencies_equal = true;
  bool ok() const {
    return logits.bound <= 1 && loss.bound <= 1 && gradients.bound <= 1 && dependencies_equal;
  }
};

/// Allowed errors (README of the fixtures): outputs absolute, losses absolute, gradients relative to the
/// largest element.
struct Tolerance {
  double output, loss, gradient;
  bool gradient_floor;  ///< float64: relative to max(1, largest); float32: to the largest, 1e-9 where all are
                        ///< zero
  double gradient_allowed(std::vector<double> const& wanted) const;
};
template <class T>
Tolerance tolerance();

/// Name in the file of a parameter of ours.
std::string fixture_name(std::string const& kind, std::string const& name);

/// Fills the store from /params; throws when one is missing or has another shape.
template <class T>
void load_parameters(io::File const& file, std::string const& kind, model::ParameterStore<T>& parameters);

/// Compares every gradient with the group's arrays.
template <class T>
Worst compare_gradients(io::File const& file, std::string const& group, std::string const& kind,
                        model::ParameterStore<T> const& parameters);

template <class T>
Report check_model(io::File const& file, std::string const& kind);
template <class T>
Report check_stage_block(io::File const& file);

}  // namespace strata::parity
