#include "reading.h"

namespace fusedstep {

namespace {

bool exchange_enabled = true;
int (*placed_device)(const void*, bool) = nullptr;
void* (*placed_stream)(int) = nullptr;

const dlpack::ExchangeApi* exchange_api(py::handle type) {
  if (!py::hasattr(type, "__dlpack_c_exchange_api__")) return nullptr;
  const py::object capsule = type.attr("__dlpack_c_exchange_api__");
  auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!api) throw py::error_already_set();
  while (api && api->version.major != 1) api = api->previous;
  return api && api->dltensor_from_py_object_no_sync ? api : nullptr;
}

TypeFacts inspect(PyTypeObject* type) {
  const py::handle t(reinterpret_cast<PyObject*>(type));
  const py::object torch = py::reinterpret_borrow<py::object>(
      PyDict_GetItemString(PyImport_GetModuleDict(), "torch"));  // null when torch is not imported
  if (torch && py::hasattr(torch, "Tensor") && PyObject_IsSubclass(t.ptr(), torch.attr("Tensor").ptr()) == 1) {
    // A subclass that intercepts every op (FakeTensor, ...) has no memory of its own to update, but DTensor's shard.
    if (!t.attr("__torch_dispatch__").is(torch.attr("Tensor").attr("__torch_dispatch__"))) {
      const bool is_dtensor = py::hasattr(t, "_local_tensor") && py::hasattr(t, "_spec");
      return {type, is_dtensor ? TypeFacts::sharded : TypeFacts::subclass, nullptr};
    }
    const dlpack::ExchangeApi* api = exchange_api(t);
    return {type, api ? TypeFacts::exchange : TypeFacts::attributes, api};
  }
  // CuPy's arrays have a buffer protocol too, for memory that the host can reach: what they say of their device counts.
  const bool dlpack = py::hasattr(t, "__dlpack__");
  const py::module_ np = py::module_::import("numpy");
  const bool numpy = PyObject_IsSubclass(t.ptr(), np.attr("ndarray").ptr()) == 1;
  if (numpy && PyObject_IsSubclass(t.ptr(), np.attr("ma").attr("MaskedArray").ptr()) == 1) {
    return {type, TypeFacts::masked, nullptr};
  }
  if (type->tp_as_buffer && type->tp_as_buffer->bf_getbuffer && (numpy || !dlpack)) {
    return {type, TypeFacts::buffer, nullptr};
  }
  if (dlpack) return {type, TypeFacts::capsule, nullptr};
  return {type, TypeFacts::unknown, nullptr};
}

const TypeFacts& facts_of(PyObject* object) {
  static std::deque<TypeFacts> known;
  static const TypeFacts* last = nullptr;
  PyTypeObject* type = Py_TYPE(object);
  if (last && last->type == type) return *last;
  for (const TypeFacts& f : known) {
    if (f.type == type) return *(last = &f);
  }
  TypeFacts fresh = inspect(type);
  if (fresh.kind == TypeFacts::unknown) {  // not worth keeping: only a message follows
    static TypeFacts unknown;
    return unknown = fresh;
  }
  Py_INCREF(type);
  known.push_back(fresh);
  return known.back();
}

// A real tensor is lazily negated only as the imaginary part of a conjugated one, every second element in memory, so a
// contiguous one of two elements or more need not be asked, which costs 200 ns.
bool may_be_lazy(const Array& a) { return a.is_complex || a.numel == 1 || !a.contiguous; }

// Whether the values of a tensor are the negative or the conjugate of what its memory holds: DLPack does not tell.
bool is_lazy(PyObject* object, const Array& a) {
  const py::handle t(object);
  return t.attr("is_neg")().is(py::bool_(true)) || (a.is_complex && t.attr("is_conj")().is(py::bool_(true)));
}

// A tensor keeps its shape when its storage is resized to nothing, as sharding libraries do between uses. Its address
// is then null plus the offset into the storage, so only low addresses need the question, which costs 500 ns.
void check_storage(PyObject* object, const Array& a, const Where& where) {
  // CUDA's virtual memory starts at 12 GB.
  const std::uintptr_t low = std::uintptr_t{1} << (a.device == kHost ? 36 : 32);
  if (a.numel == 0 || reinterpret_cast<std::uintptr_t>(a.data) >= low) return;
  const py::handle t(object);
  if (py::cast<std::int64_t>(t.attr("untyped_storage")().attr("nbytes")()) > 0) return;
  throw py::value_error(where.text() + " has no memory: its storage was resized to 0 bytes");
}

bool is_torch(const TypeFacts& facts) {
  return facts.kind == TypeFacts::exchange || facts.kind == TypeFacts::attributes;
}

void check_memory(PyObject* object, const TypeFacts& facts, const Array& a, const Where& where) {
  if (is_torch(facts)) check_storage(object, a, where);
  if (a.numel == 0) return;
  if (!a.data) {
    throw py::value_error(where.text() + " has no memory (a null address)" + (is_torch(facts) ? kOutside : ""));
  }
  if (reinterpret_cast<std::uintptr_t>(a.data) % item_size(a.format) != 0) {
    throw py::value_error(where.text() + " is not aligned to its element size");
  }
}

py::object spec_of(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("_spec");
  return py::handle(object).attr(py::handle(name));
}

std::string placements_text(PyObject* object) { return py::str(py::handle(object).attr("placements")); }

// With the ranks: what a mesh prints may be the same for two.
std::string mesh_text(const py::object& mesh) {
  const std::string ranks = py::str(mesh.attr("mesh").attr("tolist")());
  return py::cast<std::string>(py::str(mesh)) + " of ranks " +
         (ranks.size() <= 80 ? ranks : ranks.substr(0, 77) + "...");
}

}  // namespace

bool is_sharded(PyObject* object) { return facts_of(object).kind == TypeFacts::sharded; }

void Placement::set(PyObject* param) {
  sharded_ = is_sharded(param);
  spec_ = sharded_ ? spec_of(param) : py::object();
}

void Placement::check(PyObject* object, PyObject* param, const Where& where, std::int64_t index) {
  const bool sharded = is_sharded(object);
  if (!sharded && !sharded_) return;
  const auto match = [index] { return " to match params[" + std::to_string(index) + "]"; };
  if (sharded != sharded_) {
    throw TypeError(where.text() + " is a " + type_name(object) + ", expected a " +
                    (sharded_ ? "DTensor" : "plain tensor") + match());
  }
  const py::object own = spec_of(object);
  if (own.is(spec_) || (own.is(like_) && spec_.is(its_))) return;
  // Strings that are made once, not for each attribute.
  static PyObject* const mesh = PyUnicode_InternFromString("mesh");
  static PyObject* const placements = PyUnicode_InternFromString("placements");
  const auto get = [](const py::object& spec, PyObject* name) -> py::object { return spec.attr(py::handle(name)); };
  const py::object on = get(own, mesh), expected = get(spec_, mesh);
  if (!on.is(expected) && !on.equal(expected)) {
    throw TypeError(where.text() + " is on another mesh, " + mesh_text(on) + ", expected " + mesh_text(expected) +
                    match());
  }
  if (!get(own, placements).equal(get(spec_, placements))) {
    throw py::value_error(where.text() + " has placements " + placements_text(object) + ", expected " +
                          placements_text(param) + match() + ": redistribute it");
  }
  like_ = own;
  its_ = spec_;
}

Reader::~Reader() {
  for (Py_buffer& b : buffers_) PyBuffer_Release(&b);
}

void Reader::use_stream(const py::object& address) {
  if (!address.is_none()) given_stream_ = reinterpret_cast<void*>(py::cast<std::uintptr_t>(address));
}

void Reader::note_stream(const TypeFacts& facts, const Array& a) {
  void* stream = nullptr;
  if (given_stream_) {
    stream = *given_stream_;
  } else if (placed_device) {
    stream = placed_stream(a.device);
  } else if (facts.kind == TypeFacts::exchange && facts.api->current_work_stream) {
    if (facts.api->current_work_stream(dlpack::kCuda, a.device, &stream) != 0) throw py::error_already_set();
  } else if (facts.kind == TypeFacts::attributes) {
    const py::object current = py::module_::import("torch").attr("cuda").attr("current_stream")(a.device);
    stream = reinterpret_cast<void*>(py::cast<std::uintptr_t>(current.attr("cuda_stream")));
  }
  streams_.emplace(a.device, stream);
}

Array Reader::fetch(PyObject* object, const TypeFacts& facts, const Where& where) {
  switch (facts.kind) {
    case TypeFacts::exchange:
      return exchange_enabled ? from_exchange(object, facts, where) : from_attributes(object, where);
    case TypeFacts::attributes:
      return from_attributes(object, where);
    case TypeFacts::buffer:
      return from_buffer(object, where);
    case TypeFacts::capsule:
      return from_capsule(object, where);
    case TypeFacts::sharded:  // within another
    case TypeFacts::subclass:
      throw py::type_error(where.text() + " is a " + type_name(object) +
                           ", expected a plain torch.Tensor or a DTensor");
    case TypeFacts::masked:
      throw py::type_error(where.text() + " is a masked array (" + type_name(object) +
                           "), expected a plain one: pass its .data, or .filled(0) of a gradient");
    case TypeFacts::unknown:
      break;
  }
  throw py::type_error(where.text() + " is a " + type_name(object) +
                       ", expected a NumPy array, a torch tensor or another DLPack array");
}

Array Reader::resolved(PyObject* object, const Where& where, const Array& a, Lazy lazy) {
  if (lazy == Lazy::refuse) {
    throw py::value_error(where.text() + " is a lazily negated or conjugated view, expected a plain tensor: call " +
                          "resolve_neg() or resolve_conj() first");
  }
  if (a.device != kHost && given_stream_) {
    throw py::value_error(
        where.text() + " is a lazily negated or conjugated view, which torch's current stream would " +
        "resolve, expected a plain tensor where stream= is given: call resolve_neg() or " + "resolve_conj() first");
  }
  const py::object plain = py::handle(object).attr("resolve_conj")().attr("resolve_neg")();
  keep_.push_back(plain);
  return read(plain.ptr(), where);
}

Array Reader::read(PyObject* object, const Where& where, Lazy lazy) {
  const Array a = read_any(object, where, lazy);
  if (a.format == Format::boolean) wrong_dtype(object, where);
  return a;
}

Array Reader::read_mask(PyObject* object, const Where& where) {
  const Array a = read_any(object, where, Lazy::refuse);
  if (a.format != Format::boolean) wrong_dtype(object, where, "", true);
  return a;
}

PyObject* Reader::local(PyObject* object) {
  if (facts_of(object).kind != TypeFacts::sharded) return object;
  static PyObject* const name = PyUnicode_InternFromString("_local_tensor");
  py::object shard = py::handle(object).attr(name);
  // The result of a collective that may not have ended is a tensor of its own kind, which waits.
  if (facts_of(shard.ptr()).kind == TypeFacts::subclass && py::hasattr(shard, "wait")) shard = shard.attr("wait")();
  return keep_.emplace_back(std::move(shard)).ptr();
}

Array Reader::read_any(PyObject* object, const Where& where, Lazy lazy) {
  object = local(object);
  const TypeFacts& facts = facts_of(object);
  Array a = fetch(object, facts, where);
  if (placed_device) a.device = placed_device(a.data, false);
  if (a.device != kHost && !streams_.contains(a.device)) note_stream(facts, a);
  if (is_torch(facts) && may_be_lazy(a) && lazy != Lazy::as_stored && is_lazy(object, a)) {
    return resolved(object, where, a, lazy);
  }
  check_memory(object, facts, a, where);
  return a;
}

Array Reader::read_scalar(PyObject* object, const Where& where, bool beside_tensor) {
  object = local(object);
  const TypeFacts& facts = facts_of(object);
  Array a = fetch(object, facts, where);
  if (placed_device) a.device = placed_device(a.data, !beside_tensor);
  if (a.device != kHost && !streams_.contains(a.device)) note_stream(facts, a);
  if (a.numel != 1 || a.is_complex || a.format != plain_format(compute_type(a.format))) {
    throw py::value_error(where.text() + " has shape " + a.shape_text() + " and dtype " + a.dtype_text() +
                          ", expected one real number, float32 or float64");
  }
  check_memory(object, facts, a, where);
  return a;
}

Number read_number(Reader& reader, PyObject* object, const Where& where) {
  if (PyFloat_Check(object)) return {PyFloat_AS_DOUBLE(object)};
  const Array a = reader.read_scalar(object, where);
  if (a.device != kHost) return {0.0, a.scalar(), a.device};
  return {a.scalar().read()};
}

void set_exchange_api(bool on) { exchange_enabled = on; }

void set_placement(int (*device_of)(const void*, bool), void* (*stream_of)(int)) {
  placed_device = device_of;
  placed_stream = stream_of;
}

}  // namespace fusedstep
