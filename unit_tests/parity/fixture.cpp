// SPDX-License-Identifier: Apache-2.0
#include "unit_tests/parity/fixture.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "core/error.hpp"

namespace strata::parity {

double largest(std::vector<double> const& values) {
  double result = 0;
  for (double const v : values) result = std::max(result, std::abs(v));
  return result;
}

void Worst::add(std::string const& name, std::vector<double> const& got, std::vector<double> const& wanted,
                double allowed) {
  if (got.size() != wanted.size())
    throw std::logic_error(name + ": " + std::to_string(got.size()) + " values, the fixture has " +
                           std::to_string(wanted.size()));
  double error = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    double const e = std::abs(got[i] - wanted[i]);
    error = e <= error ? error : (std::isnan(e) ? std::numeric_limits<double>::infinity() : e);
  }
  double const magnitude = largest(wanted);
  add({magnitude > 0 ? error / magnitude : error, error / allowed, name});
}

void Worst::add(Worst const& other) {
  relative = std::max(relative, other.relative);
  if (other.bound >= bound) {
    bound = other.bound;
    where = other.where;
  }
}

double Tolerance::gradient_allowed(std::vector<double> const& wanted) const {
  double const magnitude = largest(wanted);
  if (gradient_floor) return gradient * std::max(1.0, magnitude);
  return magnitude > 0 ? gradient * magnitude : 1e-9;
}

template <>
Tolerance tolerance<double>() {
  return {1e-10, 1e-10, 1e-10, true};
}
template <>
Tolerance tolerance<float>() {
  return {2e-5, 1e-5, 3e-5, false};
}

std::string fixture_name(std::string const& kind, std::string const& name) {
  if (kind == "mblm_encoder") return "mblm." + name;
  if (kind != "megabyte") return name;
  static std::vector<std::pair<std::string, std::string>> const prefixes = {
      {"token_embs_rev.", "token_embs."},
      {"stage_models.", "transformers."},
      {"to_next_stage_proj.", "to_next_transformer_projections."}};
  for (auto const& [ours, theirs] : prefixes)
    if (name.starts_with(ours)) return theirs + name.substr(ours.size());
  return name;
}

template <class T>
void load_parameters(io::File const& file, std::string const& kind, model::ParameterStore<T>& parameters) {
  std::size_t const in_file = file.children("/params").size();
  if (in_file != parameters.all().size())
    throw core::InputError(file.path() + ": /params holds " + std::to_string(in_file) +
                           " arrays, the model has " + std::to_string(parameters.all().size()) +
                           " parameters");
  for (std::size_t p = 0; p < parameters.all().size(); ++p) {
    auto const& info = parameters.all()[p];
    std::string const path = "/params/" + fixture_name(kind, info.name);
    io::Shape shape;
    std::vector<double> const values = file.read<double>(path, &shape);
    if (shape != info.shape) throw core::InputError(file.path() + ": " + path + " has an unexpected shape");
    std::vector<T> const converted(values.begin(), values.end());
    parameters.set(p, converted.data());
  }
}

template <class T>
Worst compare_gradients(io::File const& file, std::string const& group, std::string const& kind,
                        model::ParameterStore<T> const& parameters) {
  Worst worst;
  for (std::size_t p = 0; p < parameters.all().size(); ++p) {
    auto const& info = parameters.all()[p];
    std::vector<double> const wanted = file.read<double>(group + "/" + fixture_name(kind, info.name));
    std::vector<T> got(wanted.size());
    parameters.get_gradient(p, got.data());
    worst.add(info.name, {got.begin(), got.end()}, wanted, tolerance<T>().gradient_allowed(wanted));
  }
  return worst;
}

#define STRATA_PARITY(T)                                                                         \
  template void load_parameters(io::File const&, std::string const&, model::ParameterStore<T>&); \
  template Worst compare_gradients(io::File const&, std::string const&, std::string const&,      \
                                   model::ParameterStore<T> const&);
STRATA_INSTANTIATE(STRATA_PARITY)

}  // namespace strata::parity
