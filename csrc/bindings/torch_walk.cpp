#include "torch_walk.h"

#include <algorithm>

#include "../kernels/registry.h"

namespace fusedstep {
namespace {

// A tensor is a Python object, a TensorImpl and a storage, 1,500 of them for 300 parameters with AdamW, and whatever
// ran since the last step has pushed them out of the cache: read one after the other they cost more than the update. So
// each is asked for a few parameters before it is needed. These are hints: a wrong address costs a useless fetch, no
// more.
void prefetch([[maybe_unused]] const void* at) {
#if defined(__GNUC__)
  __builtin_prefetch(at);
#endif
}

// The C++ side of a tensor: so far every torch has its address in one of the two words behind the object's header.
void prefetch_tensor(const py::object& tensor) {
  if (!tensor || Py_TYPE(tensor.ptr())->tp_basicsize < static_cast<Py_ssize_t>(sizeof(PyObject) + 2 * sizeof(void*)))
    return;
  const char* const* words = reinterpret_cast<const char* const*>(tensor.ptr() + 1);
  for (int w = 0; w < 2; ++w) {
    for (int line = 0; line < 4; ++line) prefetch(words[w] + 64 * line);
  }
}

py::object none_is_null(py::object item) { return item && item.is_none() ? py::object() : item; }

py::object find_in_mapping(const py::handle& mapping, const py::handle& key) {
  const auto item = py::reinterpret_steal<py::object>(PyObject_GetItem(mapping.ptr(), key.ptr()));
  if (item) return item;
  if (!PyErr_ExceptionMatches(PyExc_KeyError)) throw py::error_already_set();
  PyErr_Clear();
  return item;
}

}  // namespace

py::object find_item(const py::handle& mapping, const py::handle& key) {
  if (!PyDict_Check(mapping.ptr())) return find_in_mapping(mapping, key);
  PyObject* const item = PyDict_GetItemWithError(mapping.ptr(), key.ptr());
  if (!item && PyErr_Occurred()) throw py::error_already_set();
  return py::reinterpret_borrow<py::object>(item);
}

// State is created in parameter order, so walking the dict beside the parameters finds nearly every entry without
// hashing a tensor, which torch does in Python.
TorchWalk::TorchWalk(const std::vector<TorchGroup>& groups, const py::object& state, std::int64_t first)
    : state_(state) {
  const bool ordered = PyDict_Check(state_.ptr());
  Py_ssize_t position = 0;
  PyObject *key = nullptr, *value = nullptr;
  const auto advance = [&] {
    if (!ordered || !PyDict_Next(state_.ptr(), &position, &key, &value)) key = nullptr;
  };
  advance();
  bool all_found = true;
  std::int64_t index = first;
  sources_.reserve(groups.size());
  for (const auto& [group, params, lr, options] : groups) {
    auto& from =
        sources_.emplace_back(TorchParam::Source{group.get(), &options, static_cast<std::uint32_t>(sources_.size())});
    from.grad_name = py::reinterpret_steal<py::object>(PyUnicode_InternFromString(group->grad_attr.c_str()));
    const auto add = [&from](const std::string& name) {
      from.state_keys.push_back(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(name.c_str())));
    };
    for (const std::string& name : group->states) add(name);
    if (group->has_step) add("step");
    for (const std::string& name : all_rules()[group->rule].scalars) add(name);
    if (group->draws) add("tensor_id");
    from.required = from.state_keys.size();
    if (group->masks) add("mask");
    from.average = from.state_keys.size();
    if (group->averages) add("ema");
    for (const py::handle param : params) {
      if (param.is_none()) {
        ++index;
        continue;
      }
      TorchParam& p = params_.emplace_back();
      p.from = &from;
      p.index = index++;
      p.param = py::reinterpret_borrow<py::object>(param);
      if (key != param.ptr()) {
        all_found = false;
        continue;
      }
      p.entry = py::reinterpret_borrow<py::object>(value);
      advance();
    }
  }
  if (!all_found) drop_repeated();  // keys of a dict differ
}

// torch's constructor lets a group name a parameter twice, and warns.
void TorchWalk::drop_repeated() {
  std::vector<const PyObject*> known;
  for (const TorchParam& p : params_) known.push_back(p.param.ptr());
  std::sort(known.begin(), known.end());
  if (std::adjacent_find(known.begin(), known.end()) == known.end()) return;
  known.clear();
  std::erase_if(params_, [&known](const TorchParam& p) {
    if (std::find(known.begin(), known.end(), p.param.ptr()) != known.end()) return true;
    known.push_back(p.param.ptr());
    return false;
  });
}

void TorchWalk::touch(const TorchParam& p) {
  prefetch(p.param.ptr());
  prefetch(p.entry.ptr());
}

void TorchWalk::open(const TorchParam& p) {
  prefetch_tensor(p.param);
#if !defined(Py_LIMITED_API) && !defined(PYPY_VERSION)
  if (!p.entry || !PyDict_Check(p.entry.ptr())) return;
  const char* keys = reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(p.entry.ptr())->ma_keys);
  for (int line = 0; line < 4; ++line) prefetch(keys + 64 * line);
#endif
}

void TorchWalk::resolve(TorchParam& p) {
  const Group& group = *p.from->group;
  p.grad = py::reinterpret_steal<py::object>(PyObject_GetAttr(p.param.ptr(), p.from->grad_name.ptr()));
  if (!p.grad) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw py::error_already_set();
    PyErr_Clear();
    throw TypeError(group.label + ": params[" + std::to_string(p.index) + "] has no attribute '" + group.grad_attr +
                    "', expected a gradient or None there (grad_attr)");
  }
  const auto& keys = p.from->state_keys;
  if (!is_wanted(p) || keys.empty()) {
    p.entry = py::object();
    return;
  }
  if (!p.entry) p.entry = none_is_null(find_item(state_, p.param));
  if (!p.entry) return;
  if (!PyMapping_Check(p.entry.ptr())) {
    throw py::type_error(group.label + ": state of params[" + std::to_string(p.index) + "] is " +
                         py::cast<std::string>(py::repr(p.entry)).substr(0, 80) + ", expected a dict of its arrays");
  }
  for (std::size_t k = 0; k < keys.size(); ++k) p.item[k] = none_is_null(find_item(p.entry, keys[k]));
}

void TorchWalk::fetch(const TorchParam& p) {
  if (!is_wanted(p)) return;
  prefetch_tensor(p.grad);
  for (const py::object& item : p.item) prefetch_tensor(item);
}

}  // namespace fusedstep
