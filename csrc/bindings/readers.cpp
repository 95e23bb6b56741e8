// The ways into an array: DLPack's exchange API, the attributes of a torch tensor, the buffer protocol, __dlpack__.

#include <algorithm>
#include <cstring>
#include <iterator>

#include "../cuda/run.h"
#include "reading.h"

namespace fusedstep {
namespace {

std::string str(py::handle h) { return py::cast<std::string>(py::str(h)); }

// What is read, and what each way in calls it.
struct Known {
  Format format;
  bool is_complex;
  const char* name;         // of NumPy and torch
  const char* buffer;       // of the buffer protocol
  std::uint8_t code, bits;  // of DLPack
};
constexpr Known kKnown[] = {{Format::float32, false, "float32", "f", dlpack::kFloat, 32},
                            {Format::float64, false, "float64", "d", dlpack::kFloat, 64},
                            {Format::bfloat16, false, "bfloat16", "bfloat16", dlpack::kBfloat, 16},
                            {Format::float16, false, "float16", "e", dlpack::kFloat, 16},
                            {Format::float32, true, "complex64", "Zf", dlpack::kComplex, 64},
                            {Format::float64, true, "complex128", "Zd", dlpack::kComplex, 128},
                            {Format::boolean, false, "bool", "?", dlpack::kBool, 8}};

// Sets the format of an array to the one that fits; false if there is none.
template <class Fits>
bool set_format(Array& a, const Fits& fits) {
  const auto found = std::find_if(std::begin(kKnown), std::end(kKnown), fits);
  if (found == std::end(kKnown)) return false;
  a.format = found->format;
  a.is_complex = found->is_complex;
  return true;
}

// "float16" of numpy.dtype('float16') and of torch.float16.
std::string dtype_of(PyObject* object) {
  std::string name = str(py::handle(object).attr("dtype"));
  return name.rfind("torch.", 0) == 0 ? name.substr(6) : name;
}

[[noreturn]] void wrong_device(const std::string& device, const Where& where) {
  static const std::string expected =
      cuda::built_with().empty() ? "cpu (this build of fusedstep has no CUDA)" : "cpu or cuda";
  throw py::value_error(where.text() + " is on device " + device + ", expected " + expected);
}

// Fills what follows from shape and strides.
void complete(Array& a) {
  a.numel = 1;
  bool dense = true;
  for (int k = a.ndim - 1; k >= 0; --k) {
    dense = dense && (!a.stride || a.shape[k] == 1 || a.stride[k] == a.numel);
    a.numel *= a.shape[k];
  }
  a.contiguous = dense || a.numel == 0;
}

// An unversioned DLPack capsule cannot say that its memory is immutable, and JAX exports such. So it is written only
// where the object says in another way that it may be.
bool says_writable(py::handle object) {
  for (const char* name : {"__array_interface__", "__cuda_array_interface__"}) {
    try {
      if (!py::hasattr(object, name)) continue;
      return !py::cast<bool>(py::cast<py::tuple>(object.attr(name)["data"])[1]);
    } catch (py::error_already_set& e) {
      if (!e.matches(PyExc_Exception)) throw;  // KeyboardInterrupt and the like are not about the array
    } catch (py::cast_error&) {
    }
  }
  return false;
}

}  // namespace

void wrong_dtype(PyObject* object, const Where& where, std::string name, bool is_mask) {
  if (py::hasattr(object, "dtype")) name = dtype_of(object);
  if (name.empty()) name = "of a " + type_name(object);
  const char* const expected = is_mask ? ", expected bool: False where an element is pruned"
                                       : ", expected float32, float64, complex of them, bfloat16 or float16";
  throw py::type_error(where.text() + " has dtype " + name + expected);
}

Array Reader::from_dlpack(PyObject* object, const dlpack::Tensor& t, const Where& where) {
  const bool on_cuda = t.device.type == dlpack::kCuda || t.device.type == dlpack::kCudaManaged;
  if (t.device.type != dlpack::kCpu && t.device.type != dlpack::kCudaHost && (!on_cuda || cuda::built_with().empty())) {
    std::string device = "type " + std::to_string(t.device.type) + " of DLPack";
    if (py::hasattr(object, "device")) device = str(py::handle(object).attr("device"));
    wrong_device(device, where);
  }
  Array a{};
  const auto fits = [&t](const Known& k) { return k.code == t.dtype.code && k.bits == t.dtype.bits; };
  if (t.dtype.lanes != 1 || !set_format(a, fits)) {
    static const char* const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
    const std::string kind = t.dtype.code < std::size(kinds) ? kinds[t.dtype.code] : "unknown";
    wrong_dtype(object, where, kind + std::to_string(t.dtype.bits));
  }
  a.device = on_cuda ? t.device.id : kHost;
  a.data = static_cast<char*>(t.data) + t.byte_offset;
  a.ndim = t.ndim;
  a.shape = t.shape;
  a.stride = t.strides;
  complete(a);
  return a;
}

Array Reader::from_exchange(PyObject* object, const TypeFacts& facts, const Where& where) {
  dlpack::Tensor t{};
  if (facts.api->dltensor_from_py_object_no_sync(object, &t) != 0) {
    PyErr_Clear();  // torch's text holds a C++ back trace; the attributes tell what is wrong
    return from_attributes(object, where);
  }
  return from_dlpack(object, t, where);
}

Array Reader::from_attributes(PyObject* object, const Where& where) {
  const py::handle t(object);
  if (const std::string layout = str(t.attr("layout")); layout != "torch.strided") {
    const bool known = where.takes_sparse && *where.takes_sparse;
    const std::string other = known ? std::string("use ") + where.takes_sparse + ", or " : "";
    throw py::type_error(where.text() + " has layout " + layout + ", expected a dense tensor: " + other +
                         "sparse=False in the embedding");
  }
  Array a{};
  a.device = kHost;
  if (const py::object device = t.attr("device"); str(device.attr("type")) != "cpu") {
    if (str(device.attr("type")) != "cuda" || cuda::built_with().empty()) wrong_device(str(device), where);
    a.device = py::cast<int>(device.attr("index"));
  }
  const std::string name = dtype_of(object);
  if (!set_format(a, [&name](const Known& k) { return name == k.name; })) wrong_dtype(object, where);
  try {
    a.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(t.attr("data_ptr")()));
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_RuntimeError)) throw;
    throw py::value_error(where.text() + " has no memory of its own" + kOutside);
  }
  auto& shape = dims_.emplace_back(py::cast<std::vector<std::int64_t>>(py::tuple(t.attr("shape"))));
  auto& stride = dims_.emplace_back(py::cast<std::vector<std::int64_t>>(t.attr("stride")()));
  a.ndim = static_cast<int>(shape.size());
  a.shape = shape.data();
  a.stride = stride.data();
  complete(a);
  return a;
}

Array Reader::from_buffer(PyObject* object, const Where& where) {
  Py_buffer& view = buffers_.emplace_back();  // there is room to note it before it is taken
  const char* name = nullptr;
  if (PyObject_GetBuffer(object, &view, PyBUF_RECORDS_RO) != 0) {
    PyErr_Clear();
    // NumPy has no bfloat16 of its own: arrays of ml_dtypes give no buffer, but a view of their bits does.
    const bool is_bfloat16 = py::hasattr(object, "dtype") && dtype_of(object) == "bfloat16";
    if (is_bfloat16) keep_.push_back(py::handle(object).attr("view")("uint16"));
    if (!is_bfloat16 || PyObject_GetBuffer(keep_.back().ptr(), &view, PyBUF_RECORDS_RO) != 0) {
      buffers_.pop_back();
      PyErr_Clear();
      wrong_dtype(object, where);
    }
    name = "bfloat16";
  }
  Array a{};
  a.device = kHost;
  const char* format = name ? name : view.format ? view.format : "B";
  if (*format == '@' || *format == '=') ++format;
  if (!set_format(a, [format](const Known& k) { return std::strcmp(format, k.buffer) == 0; })) {
    wrong_dtype(object, where);
  }
  a.data = view.buf;
  a.ndim = view.ndim;
  if (view.readonly) a.read_only = "is read-only";
  auto& dims = dims_.emplace_back(2 * static_cast<std::size_t>(view.ndim));
  for (int k = 0; k < view.ndim; ++k) {
    dims[k] = view.shape[k];
    if (view.strides[k] % view.itemsize != 0 && view.shape[k] > 1) {
      throw py::value_error(where.text() + " has strides that are not multiples of its element size");
    }
    dims[view.ndim + k] = view.strides[k] / view.itemsize;
  }
  a.shape = dims.data();
  a.stride = dims.data() + view.ndim;
  complete(a);
  return a;
}

Array Reader::from_capsule(PyObject* object, const Where& where) {
  const py::handle o(object);
  py::object capsule;
  try {
    py::dict on_stream;  // for the producer to order its own work before ours; 1 is the legacy default stream
    if (py::hasattr(o, "__dlpack_device__")) {
      const auto type = py::cast<std::int32_t>(py::tuple(o.attr("__dlpack_device__")())[0]);
      const auto stream = reinterpret_cast<std::intptr_t>(given_stream_.value_or(nullptr));
      if (type == dlpack::kCuda || type == dlpack::kCudaManaged) on_stream["stream"] = stream == 0 ? 1 : stream;
    }
    try {
      capsule = o.attr("__dlpack__")(**on_stream, py::arg("max_version") = py::make_tuple(1, 1));
    } catch (py::error_already_set& e) {
      if (!e.matches(PyExc_TypeError)) throw;  // a TypeError is a producer from before DLPack 1.0
      capsule = o.attr("__dlpack__")(**on_stream);
    }
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_Exception)) throw;  // KeyboardInterrupt and the like are not about the array
    py::raise_from(e, PyExc_TypeError, (where.text() + " cannot be read through its __dlpack__: " + e.what()).c_str());
    throw py::error_already_set();
  }
  keep_.push_back(capsule);  // unconsumed: its own destructor releases the tensor
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    auto* m = static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (m->version.major == 1) {
      Array a = from_dlpack(object, m->tensor, where);
      if (m->flags & dlpack::kReadOnly) a.read_only = "is read-only";
      return a;
    }
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    Array a = from_dlpack(
        object, static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))->tensor, where);
    if (!says_writable(o)) a.read_only = "may be immutable (as JAX's arrays are: its DLPack capsule cannot tell)";
    return a;
  }
  throw py::type_error(where.text() + " gave no DLPack 0.x or 1.x capsule");
}

}  // namespace fusedstep
