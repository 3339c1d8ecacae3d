//! The header of a GGUF file, read by ggml's own parser.

use std::{
    ffi::{CStr, CString},
    path::Path,
};

use llama_cpp_sys_2 as sys;

/// An open header. The file itself is closed again.
pub(crate) struct File(*mut sys::gguf_context);

impl File {
    /// `None`: no GGUF file, or a damaged one.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let path = CString::new(path.as_os_str().as_encoded_bytes()).ok()?;
        let params = sys::gguf_init_params {
            no_alloc: true,
            ctx: std::ptr::null_mut(),
        };
        // SAFETY: the path is NUL-terminated; without `ctx` no tensor data is touched.
        let header = unsafe { sys::gguf_init_from_file(path.as_ptr(), params) };
        (!header.is_null()).then_some(Self(header))
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let at = self.find(key, sys::GGUF_TYPE_STRING)?;
        // SAFETY: the key exists and is a string, which lives as long as the header.
        let text = unsafe { CStr::from_ptr(sys::gguf_get_val_str(self.0, at)) };
        text.to_str().ok().map(str::to_owned)
    }

    /// A whole number that is not negative, of any of the types that writers use.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        if let Some(at) = self.find(key, sys::GGUF_TYPE_UINT32) {
            // SAFETY: the key exists and has this type; ggml asserts on any other.
            return Some(u64::from(unsafe { sys::gguf_get_val_u32(self.0, at) }));
        }
        if let Some(at) = self.find(key, sys::GGUF_TYPE_UINT64) {
            // SAFETY: as above.
            return Some(unsafe { sys::gguf_get_val_u64(self.0, at) });
        }
        let at = self.find(key, sys::GGUF_TYPE_INT32)?;
        // SAFETY: as above.
        u64::try_from(unsafe { sys::gguf_get_val_i32(self.0, at) }).ok()
    }

    /// A list of texts, which need not be UTF-8.
    pub(crate) fn texts(&self, key: &str) -> Option<Vec<&CStr>> {
        let at = self.find(key, sys::GGUF_TYPE_ARRAY)?;
        // SAFETY: the key exists and is a list; its texts live as long as the header, and are as many as it says.
        unsafe {
            let texts = sys::gguf_get_arr_type(self.0, at) == sys::GGUF_TYPE_STRING;
            texts.then(|| {
                (0..sys::gguf_get_arr_n(self.0, at))
                    .map(|index| CStr::from_ptr(sys::gguf_get_arr_str(self.0, at, index)))
                    .collect()
            })
        }
    }

    /// Names and sizes in bytes of all tensors.
    pub(crate) fn tensors(&self) -> Vec<(String, u64)> {
        // SAFETY: indices are below the count; names live as long as the header.
        unsafe {
            (0..sys::gguf_get_n_tensors(self.0))
                .map(|at| {
                    let name = CStr::from_ptr(sys::gguf_get_tensor_name(self.0, at));
                    let bytes = sys::gguf_get_tensor_size(self.0, at) as u64;
                    (name.to_string_lossy().into_owned(), bytes)
                })
                .collect()
        }
    }

    /// Rows of the matrix `name`: its second dimension.
    pub(crate) fn rows(&self, name: &str) -> Option<u64> {
        self.shape(name).map(|shape| shape[1])
    }

    /// The lengths of all dimensions of a tensor; 1 for those that it does not have.
    pub(crate) fn shape(&self, name: &str) -> Option<[u64; 4]> {
        let at = self.tensor(name)?;
        // SAFETY: the tensor is there; four dimensions always are.
        let lengths = unsafe { std::slice::from_raw_parts(sys::gguf_get_tensor_ne(self.0, at), 4) };
        let mut shape = [0; 4];
        for (own, &length) in shape.iter_mut().zip(lengths) {
            *own = u64::try_from(length).ok()?;
        }
        Some(shape)
    }

    /// Whether every backend multiplies matrices of the tensor's format.
    pub(crate) fn computes(&self, name: &str) -> bool {
        let formats = [
            sys::GGML_TYPE_F32,
            sys::GGML_TYPE_F16,
            sys::GGML_TYPE_BF16,
            sys::GGML_TYPE_Q8_0,
            sys::GGML_TYPE_Q5_1,
            sys::GGML_TYPE_Q5_0,
            sys::GGML_TYPE_Q4_1,
            sys::GGML_TYPE_Q4_0,
        ];
        // SAFETY: the tensor is there.
        let format = |at| unsafe { sys::gguf_get_tensor_type(self.0, at) };
        self.tensor(name)
            .is_some_and(|at| formats.contains(&format(at)))
    }

    /// The first tensor whose numbers no kernel multiplies with; llama.cpp would call one that is not there.
    pub(crate) fn uncomputable(&self) -> Option<String> {
        // SAFETY: indices are below the count; names live as long as the header.
        unsafe {
            (0..sys::gguf_get_n_tensors(self.0)).find_map(|at| {
                let name = CStr::from_ptr(sys::gguf_get_tensor_name(self.0, at)).to_string_lossy();
                let never = match sys::gguf_get_tensor_type(self.0, at) {
                    sys::GGML_TYPE_I8
                    | sys::GGML_TYPE_I16
                    | sys::GGML_TYPE_I64
                    | sys::GGML_TYPE_F64 => true,
                    // Which experts a token has: looked up, not multiplied.
                    sys::GGML_TYPE_I32 => !name.contains("tid2eid"),
                    _ => false,
                };
                never.then(|| name.into_owned())
            })
        }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        let Ok(key) = CString::new(key) else {
            return false;
        };
        // SAFETY: the header is valid, the key NUL-terminated.
        unsafe { sys::gguf_find_key(self.0, key.as_ptr()) >= 0 }
    }

    pub(crate) fn is_number_f32(&self, key: &str) -> bool {
        self.find(key, sys::GGUF_TYPE_FLOAT32).is_some()
    }

    /// A list of numbers of type u32.
    pub(crate) fn numbers(&self, key: &str) -> Option<Vec<u32>> {
        let at = self.find(key, sys::GGUF_TYPE_ARRAY)?;
        // SAFETY: the key exists and is an array; its data is as long as it says and of the type that is looked at.
        unsafe {
            if sys::gguf_get_arr_type(self.0, at) != sys::GGUF_TYPE_UINT32 {
                return None;
            }
            let count = sys::gguf_get_arr_n(self.0, at);
            if count == 0 {
                return Some(Vec::new());
            }
            let data = sys::gguf_get_arr_data(self.0, at).cast::<u32>();
            Some((0..count).map(|at| data.add(at).read_unaligned()).collect())
        }
    }

    fn tensor(&self, name: &str) -> Option<i64> {
        let name = CString::new(name).ok()?;
        // SAFETY: the header is valid, the name NUL-terminated.
        let at = unsafe { sys::gguf_find_tensor(self.0, name.as_ptr()) };
        (at >= 0).then_some(at)
    }

    fn find(&self, key: &str, of_type: sys::gguf_type) -> Option<i64> {
        let key = CString::new(key).ok()?;
        // SAFETY: the header is valid, the key NUL-terminated; the index is looked at before it is used.
        unsafe {
            let at = sys::gguf_find_key(self.0, key.as_ptr());
            (at >= 0 && sys::gguf_get_kv_type(self.0, at) == of_type).then_some(at)
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { sys::gguf_free(self.0) };
    }
}
