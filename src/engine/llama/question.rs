//! The question that llama.cpp asks between the nodes of its graph: does anybody still wait?

use std::{cell::Cell, ffi::c_void, ptr};

use llama_cpp_sys_2 as sys;

type Asked = Cell<Option<*const dyn Fn() -> bool>>;

/// Who is asked while a graph is computed; a context holds its address.
pub(super) struct Question(Box<Asked>);

impl Question {
    pub(super) fn new() -> Self {
        Self(Box::new(Cell::new(None)))
    }

    /// Has the context made of `params` ask. The question must outlive it.
    pub(super) fn attach(&self, params: &mut sys::llama_context_params) {
        params.abort_callback = Some(on_question);
        params.abort_callback_data = ptr::from_ref(&*self.0).cast_mut().cast();
    }

    /// Runs `work`, during which `abandoned` answers.
    pub(super) fn during<T>(&self, abandoned: &dyn Fn() -> bool, work: impl FnOnce() -> T) -> T {
        /// Empties the cell also when `work` panics.
        struct Emptied<'a>(&'a Asked);
        impl Drop for Emptied<'_> {
            fn drop(&mut self) {
                self.0.set(None);
            }
        }
        #[expect(
            clippy::transmute_ptr_to_ptr,
            reason = "a cast cannot lengthen the lifetime of a trait object"
        )]
        // SAFETY: only the lifetime is changed, and the cell is emptied before it ends.
        let asked: *const (dyn Fn() -> bool + 'static) =
            unsafe { std::mem::transmute(ptr::from_ref(abandoned)) };
        self.0.set(Some(asked));
        let _emptied = Emptied(&self.0);
        work()
    }
}

extern "C" fn on_question(cell: *mut c_void) -> bool {
    // SAFETY: `attach` passes the address of the boxed cell, which outlives the context; what it holds lives until
    // `during` returns, on whose thread this is called.
    unsafe {
        let cell = &*cell.cast::<Asked>();
        cell.get().is_some_and(|abandoned| (*abandoned)())
    }
}
