// SPDX-License-Identifier: Apache-2.0
#include "io/torch_pickle.hpp"

#include <array>
#include <optional>
#include <unordered_map>
#include <utility>

#include "io/pickle_stack.hpp"

namespace strata::io {

namespace {

/// The names a pickle may ask for.
struct Global {
  enum class Kind { storage, rebuild_tensor, rebuild_parameter, ordered_dict } kind;
  char const* module;
  char const* name;
  StoredType type = StoredType::float32;  // of storage
};
constexpr std::array<Global, 13> globals{
    {{Global::Kind::storage, "torch", "FloatStorage", StoredType::float32},
     {Global::Kind::storage, "torch", "DoubleStorage", StoredType::float64},
     {Global::Kind::storage, "torch", "HalfStorage", StoredType::float16},
     {Global::Kind::storage, "torch", "BFloat16Storage", StoredType::bfloat16},
     {Global::Kind::storage, "torch", "LongStorage", StoredType::int64},
     {Global::Kind::storage, "torch", "IntStorage", StoredType::int32},
     {Global::Kind::storage, "torch", "ShortStorage", StoredType::int16},
     {Global::Kind::storage, "torch", "CharStorage", StoredType::int8},
     {Global::Kind::storage, "torch", "ByteStorage", StoredType::uint8},
     {Global::Kind::storage, "torch", "BoolStorage", StoredType::boolean},
     {Global::Kind::rebuild_tensor, "torch._utils", "_rebuild_tensor_v2"},
     {Global::Kind::rebuild_parameter, "torch._utils", "_rebuild_parameter"},
     {Global::Kind::ordered_dict, "collections", "OrderedDict"}}};

using Ref = PickleRef;
using Value = PickleValue;

/// Those that build objects or run code, by name; others by number.
std::string opcode_name(unsigned char code) {
  switch (code) {
    case 'i':
      return "INST";
    case 'o':
      return "OBJ";
    case 'P':
      return "PERSID";
    case 0x81:
      return "NEWOBJ";
    case 0x92:
      return "NEWOBJ_EX";
    case 0x82:
    case 0x83:
    case 0x84:
      return "EXT";
    default:
      return std::to_string(static_cast<int>(code));
  }
}

class Machine : private PickleStack {
 public:
  using PickleStack::PickleStack;

  /// The value the pickle ends with.
  Ref run();
  PickledState state(Ref root) const;

 private:
  // What opcodes do.
  bool step();
  void push_global(std::string const& module, std::string const& name);
  void set_items(Ref dict, std::vector<Ref> const& items);
  void append_items(Ref list, std::vector<Ref> const& items);
  void persistent();
  void reduce();
  void build();
  void rebuild_tensor(Ref arguments);
  std::vector<Ref> tuple(Ref ref, char const* what, std::size_t least, std::size_t most);
  Shape shape(Ref ref, char const* what);
  std::optional<Ref> entry(Value const& dict, std::string const& key) const;

  std::vector<PickledTensor> tensors_;
};

void Machine::push_global(std::string const& module, std::string const& name) {
  for (std::size_t i = 0; i < globals.size(); ++i)
    if (module == globals[i].module && name == globals[i].name) {
      push({.kind = Kind::global, .integer = static_cast<std::int64_t>(i)});
      return;
    }
  std::string const full = quote(module + "." + name);
  if (module.starts_with("torch") && name.ends_with("Storage"))
    fail("has numbers of the type " + full + ", which is not known");
  fail("asks for " + full + ", which no dictionary of tensors needs; nothing of it was run");
}

void Machine::set_items(Ref dict, std::vector<Ref> const& items) {
  Value& into = expect(dict, Kind::dict, "the target of items");
  if (items.size() % 2 != 0) fail("has a key without a value");
  into.items.insert(into.items.end(), items.begin(), items.end());
}

void Machine::append_items(Ref list, std::vector<Ref> const& items) {
  Value& into = expect(list, Kind::list, "the target of items");
  into.items.insert(into.items.end(), items.begin(), items.end());
}

/// ('storage', type, key, device, number of elements).
void Machine::persistent() {
  std::vector<Ref> const id = tuple(pop(), "a persistent id", 5, 5);
  if (values_[id[0]].kind != Kind::text || values_[id[0]].text != "storage")
    fail("refers to something else than a storage");
  Global const& type =
      globals[static_cast<std::size_t>(expect(id[1], Kind::global, "the type of a storage").integer)];
  if (type.kind != Global::Kind::storage) fail("has a function as the type of a storage");
  Value storage;
  storage.kind = Kind::storage;
  storage.type = type.type;
  Value const& key = expect(id[2], Kind::text, "the key of a storage");
  if (key.text.size() > 64)
    fail("has a key of " + std::to_string(key.text.size()) + " characters for a storage");
  storage.text = key.text;
  storage.integer = expect(id[4], Kind::integer, "the size of a storage").integer;
  if (storage.integer < 0) fail("has a storage of negative size");
  push(std::move(storage));
}

/// The items of a tuple that has `least` to `most` of them.
std::vector<Ref> Machine::tuple(Ref ref, char const* what, std::size_t least, std::size_t most) {
  std::vector<Ref> const& items = expect(ref, Kind::tuple, what).items;
  if (items.size() < least || items.size() > most)
    fail("has a tuple of " + std::to_string(items.size()) + " values as " + what);
  return items;
}

Shape Machine::shape(Ref ref, char const* what) {
  Shape result;
  for (Ref const item : tuple(ref, what, 0, 64)) result.push_back(expect(item, Kind::integer, what).integer);
  return result;
}

/// (storage, offset, size, stride, requires_grad, backward hooks[, metadata]).
void Machine::rebuild_tensor(Ref arguments) {
  std::vector<Ref> const a = tuple(arguments, "the arguments of a tensor", 6, 7);
  PickledTensor tensor;
  Value const& storage = expect(a[0], Kind::storage, "the storage of a tensor");
  tensor.type = storage.type;
  tensor.storage = storage.text;
  tensor.storage_elements = static_cast<std::uint64_t>(storage.integer);
  std::int64_t const first = expect(a[1], Kind::integer, "the offset of a tensor").integer;
  tensor.shape = shape(a[2], "the shape of a tensor");
  tensor.strides = shape(a[3], "the strides of a tensor");
  if (tensor.shape.size() != tensor.strides.size())
    fail("has a tensor of " + std::to_string(tensor.shape.size()) + " dimensions with " +
         std::to_string(tensor.strides.size()) + " strides");
  if (first < 0 || !reach(tensor.shape, tensor.strides))
    fail("has a tensor of shape " + shape_text(tensor.shape) + ", strides " + shape_text(tensor.strides) +
         " and offset " + std::to_string(first) + ", which no storage holds");
  tensor.first = static_cast<std::uint64_t>(first);
  tensors_.push_back(std::move(tensor));
  push({.kind = Kind::tensor, .integer = static_cast<std::int64_t>(tensors_.size() - 1)});
}

void Machine::reduce() {
  Ref const arguments = pop();
  Global const& function =
      globals[static_cast<std::size_t>(expect(pop(), Kind::global, "what is called").integer)];
  switch (function.kind) {
    case Global::Kind::rebuild_tensor:
      return rebuild_tensor(arguments);
    case Global::Kind::rebuild_parameter: {  // (tensor, requires_grad, backward hooks)
      Ref const tensor = tuple(arguments, "the arguments of a parameter", 3, 3)[0];
      expect(tensor, Kind::tensor, "the value of a parameter");
      return push(tensor);
    }
    case Global::Kind::ordered_dict:
      tuple(arguments, "the arguments of an OrderedDict", 0, 0);
      return push({.kind = Kind::dict, .ordered = true});
    case Global::Kind::storage:
      fail("calls " + std::string(function.name) + ", which is a type and not a function");
  }
}

/// A state dict carries its version numbers as attributes; they are dropped.
void Machine::build() {
  expect(pop(), Kind::dict, "the attributes of an object");
  if (!expect(top(), Kind::dict, "what gets attributes").ordered)
    fail("sets attributes of a dictionary, which has none");
}

/// One opcode; false at the end.
bool Machine::step() {
  auto const code = static_cast<unsigned char>(take(1)[0]);
  switch (code) {
    case 0x80:  // PROTO
      if (std::uint64_t const protocol = natural(1); protocol > 5)
        fail("is of pickle protocol " + std::to_string(protocol) + ", which is not known");
      return true;
    case 0x95:  // FRAME: its length only helps readers of streams
      take(8);
      return true;
    case '.':  // STOP
      return false;
    case '(':  // MARK
      if (marks_.size() >= most_values) fail("describes more than a dictionary of tensors would");
      marks_.push_back(stack_.size());
      return true;
    case '0':  // POP
      pop();
      return true;
    case '1':  // POP_MARK
      pop_mark();
      return true;
    case 'N':
      push(Value{});
      return true;
    case 0x88:  // NEWTRUE
      push_boolean(true);
      return true;
    case 0x89:  // NEWFALSE
      push_boolean(false);
      return true;
    case 'J':  // BININT
      push_integer(signed_number(4));
      return true;
    case 'K':  // BININT1
      push_integer(static_cast<std::int64_t>(natural(1)));
      return true;
    case 'M':  // BININT2
      push_integer(static_cast<std::int64_t>(natural(2)));
      return true;
    case 0x8a:  // LONG1
      push_integer(signed_number(natural(1)));
      return true;
    case 'G':  // BINFLOAT; its value is of no use here
      take(8);
      push({.kind = Kind::real});
      return true;
    case 'X':  // BINUNICODE
      push_text(take(natural(4)));
      return true;
    case 0x8c:  // SHORT_BINUNICODE
      push_text(take(natural(1)));
      return true;
    case 0x8d:  // BINUNICODE8
      push_text(take(natural(8)));
      return true;
    case '}':  // EMPTY_DICT
      push_items(Kind::dict, {});
      return true;
    case ']':  // EMPTY_LIST
      push_items(Kind::list, {});
      return true;
    case ')':  // EMPTY_TUPLE
      push_items(Kind::tuple, {});
      return true;
    case 't':  // TUPLE
      push_items(Kind::tuple, pop_mark());
      return true;
    case 0x85:  // TUPLE1
    case 0x86:  // TUPLE2
    case 0x87:  // TUPLE3
      push_items(Kind::tuple, pop_many(code - 0x84U));
      return true;
    case 's': {  // SETITEM
      std::vector<Ref> const item = pop_many(2);
      set_items(top(), item);
      return true;
    }
    case 'u': {  // SETITEMS
      std::vector<Ref> const items = pop_mark();
      set_items(top(), items);
      return true;
    }
    case 'a': {  // APPEND
      std::vector<Ref> const item = pop_many(1);
      append_items(top(), item);
      return true;
    }
    case 'e': {  // APPENDS
      std::vector<Ref> const items = pop_mark();
      append_items(top(), items);
      return true;
    }
    case 'q':  // BINPUT
      memoize(natural(1), top());
      return true;
    case 'r':  // LONG_BINPUT
      memoize(natural(4), top());
      return true;
    case 0x94:  // MEMOIZE
      memoize(memo_.size(), top());
      return true;
    case 'h':  // BINGET
      recall(natural(1));
      return true;
    case 'j':  // LONG_BINGET
      recall(natural(4));
      return true;
    case 'c': {  // GLOBAL
      std::string const module = line();
      push_global(module, line());
      return true;
    }
    case 0x93: {  // STACK_GLOBAL
      std::vector<Ref> const names = pop_many(2);
      std::string const module = expect(names[0], Kind::text, "the module of a name").text;
      push_global(module, expect(names[1], Kind::text, "a name").text);
      return true;
    }
    case 'Q':  // BINPERSID
      persistent();
      return true;
    case 'R':  // REDUCE
      reduce();
      return true;
    case 'b':  // BUILD
      build();
      return true;
    default:
      fail("uses the opcode " + opcode_name(code) +
           ", which no dictionary of tensors needs; nothing of it was run");
  }
}

Ref Machine::run() {
  if (!bytes_.starts_with('\x80')) fail("is no pickle of torch.save");
  while (step()) {
  }
  if (stack_.size() != 1 || !marks_.empty()) fail("ends with values left over");
  return stack_.back();
}

std::optional<Ref> Machine::entry(Value const& dict, std::string const& key) const {
  std::optional<Ref> found;
  for (std::size_t i = 0; i < dict.items.size(); i += 2)
    if (Value const& name = values_[dict.items[i]]; name.kind == Kind::text && name.text == key)
      found = dict.items[i + 1];
  return found;
}

PickledState Machine::state(Ref root) const {
  if (values_[root].kind == Kind::tensor) fail("is a single tensor, not a dictionary of tensors");
  if (values_[root].kind != Kind::dict)
    fail("is " + std::string(kind_name(values_[root].kind)) + ", not a dictionary of tensors");
  Value const* dict = &values_[root];
  for (char const* key : {"MODEL", "model_state_dict", "state_dict", "model"})
    if (auto const inner = entry(*dict, key); inner && values_[*inner].kind == Kind::dict) {
      dict = &values_[*inner];
      break;
    }
  PickledState state;
  std::unordered_map<std::string, int> seen;
  for (std::size_t i = 0; i < dict->items.size(); i += 2) {
    Value const& key = values_[dict->items[i]];
    Value const& value = values_[dict->items[i + 1]];
    if (key.kind != Kind::text) fail("has " + std::string(kind_name(key.kind)) + " as the name of a tensor");
    if (++seen[key.text] > 1) fail("has the name " + quote(key.text) + " twice");
    if (value.kind == Kind::tensor) {
      state.tensors.push_back(tensors_[static_cast<std::size_t>(value.integer)]);
      state.tensors.back().name = key.text;
    } else {
      state.others.push_back(key.text);
    }
  }
  if (state.tensors.empty()) fail("holds no tensors");
  return state;
}

}  // namespace

PickledState read_torch_pickle(std::string const& bytes, std::string const& where) {
  Machine machine(bytes, where);
  Ref const root = machine.run();
  return machine.state(root);
}

}  // namespace strata::io
