// SPDX-License-Identifier: MIT
/*
 * The module lblatency._observe: it records one duration through a builtin function of one
 * argument. A call through cffi would take several times as long as the recording itself.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "track/backend.h"

typedef int observe_fn(struct lbl_backend *backend, double seconds);

/* The addresses arrive as integers from cffi's module, so only this checks their types. */
#define LBL_HAS_TYPE(function, type)                                                               \
	_Static_assert(__builtin_types_compatible_p(__typeof__(function), type), #function)
LBL_HAS_TYPE(lbl_backend_try_observe, observe_fn);
LBL_HAS_TYPE(lbl_backend_observe, observe_fn);

struct bound {
	struct lbl_backend *backend;
	observe_fn *try_observe, *observe;
	PyObject *keep; /* an object that must live as long as the backend */
	PyObject *refuse; /* called with a negative errno and the argument; raises */
};

static PyObject *observe(PyObject *capsule, PyObject *seconds)
{
	const struct bound *bound = PyCapsule_GetPointer(capsule, NULL);
	double value = PyFloat_AsDouble(seconds);
	int rc;

	if (value == -1.0 && PyErr_Occurred()) {
		if (!PyErr_ExceptionMatches(PyExc_OverflowError))
			return NULL;
		PyErr_Clear();
		return PyObject_CallFunction(bound->refuse, "iO", -EINVAL, seconds);
	}
	rc = bound->try_observe(bound->backend, value);
	if (rc == -EBUSY) {
		PyThreadState *state = PyEval_SaveThread();

		rc = bound->observe(bound->backend, value);
		PyEval_RestoreThread(state);
	}
	if (rc)
		return PyObject_CallFunction(bound->refuse, "iO", rc, seconds);
	Py_RETURN_NONE;
}

static PyMethodDef observe_def = { "observe", observe, METH_O,
				   "observe(seconds, /)\n--\n\nRecord a duration. ValueError for "
				   "NaN, infinities and negatives." };

static void unbind_backend(PyObject *capsule)
{
	struct bound *bound = PyCapsule_GetPointer(capsule, NULL);

	Py_DECREF(bound->keep);
	Py_DECREF(bound->refuse);
	PyMem_Free(bound);
}

static PyObject *bind_backend(PyObject *module, PyObject *args)
{
	unsigned long long backend, try_observe, observe_waiting;
	PyObject *keep, *refuse, *capsule, *function;
	struct bound *bound;

	(void)module;
	if (!PyArg_ParseTuple(args, "KKKOO", &backend, &try_observe, &observe_waiting, &keep,
			      &refuse))
		return NULL;
	bound = PyMem_Malloc(sizeof(*bound));
	if (!bound)
		return PyErr_NoMemory();
	bound->backend = (struct lbl_backend *)(uintptr_t)backend;
	bound->try_observe = (observe_fn *)(uintptr_t)try_observe;
	bound->observe = (observe_fn *)(uintptr_t)observe_waiting;
	capsule = PyCapsule_New(bound, NULL, unbind_backend);
	if (!capsule) {
		PyMem_Free(bound);
		return NULL;
	}
	bound->keep = Py_NewRef(keep);
	bound->refuse = Py_NewRef(refuse);
	function = PyCFunction_New(&observe_def, capsule);
	Py_DECREF(capsule);
	return function;
}

static PyMethodDef functions[] = {
	{ "bind", bind_backend, METH_VARARGS,
	  "bind(backend, try_observe, observe, keep, refuse, /)\n--\n\n"
	  "Return a function observe(seconds). The first three arguments are addresses." },
	{ 0 },
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "lblatency._observe",
	.m_methods = functions,
};

PyMODINIT_FUNC PyInit__observe(void)
{
	return PyModuleDef_Init(&module_def);
}
