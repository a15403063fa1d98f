# distutils: language = c++
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Compiled core of the 3D Felzenszwalb supervoxels; the public function is `supervoxels.felzenszwalb_3d`.

Edges are numbered `family * voxels + voxel`; the 13 families and their order are those of the published program, because
that order breaks the ties between edges of equal cost. They are sorted by a float32 radix sort (cheap) and then exactly, in
float64, inside each run of equal float32 keys.
"""
import numpy as np
cimport numpy as cnp
from libc.math cimport sqrt
from libc.stdint cimport uint32_t, int64_t
from libc.string cimport memcpy, memset
from libcpp.algorithm cimport stable_sort
from libcpp.vector cimport vector

cdef extern from *:
    """
    #include <cstdint>
    struct Edge { double cost; uint32_t id; };
    static inline bool operator<(const Edge& a, const Edge& b) { return a.cost < b.cost; }
    """
    cdef struct Edge:
        double cost
        uint32_t id

cdef int FAMILIES[13][3]
FAMILIES[0][:] = [0, 1, 0]
FAMILIES[1][:] = [0, 1, 1]
FAMILIES[2][:] = [0, 0, 1]
FAMILIES[3][:] = [0, 1, -1]
FAMILIES[4][:] = [1, 1, 0]
FAMILIES[5][:] = [1, 1, 1]
FAMILIES[6][:] = [1, 0, 1]
FAMILIES[7][:] = [1, -1, 0]
FAMILIES[8][:] = [1, -1, -1]
FAMILIES[9][:] = [1, 0, -1]
FAMILIES[10][:] = [1, 1, -1]
FAMILIES[11][:] = [1, -1, 1]
FAMILIES[12][:] = [1, 0, 0]


cdef struct Graph:
    const double* value
    int64_t voxels
    int64_t offset[13]
    double weight[13]


cdef inline double edge_cost(const Graph* g, uint32_t edge) noexcept nogil:
    cdef int64_t family = edge / g.voxels
    cdef int64_t p = edge - family * g.voxels
    cdef double d = g.value[p + g.offset[family]] - g.value[p]
    return sqrt(g.weight[family] * (d * d))


cdef int64_t list_edges(const Graph* g, const int* shape, uint32_t* edges, uint32_t* keys) noexcept nogil:
    """Write all edges in published order; returns their number. A non-negative float32 sorts like its bits."""
    cdef int64_t n = 0, z, y, x, p
    cdef int f, dz, dy, dx
    cdef float key
    for f in range(13):
        dz, dy, dx = FAMILIES[f][0], FAMILIES[f][1], FAMILIES[f][2]
        for z in range(0, shape[0] - dz):
            for y in range(1 if dy < 0 else 0, shape[1] - (1 if dy > 0 else 0)):
                for x in range(1 if dx < 0 else 0, shape[2] - (1 if dx > 0 else 0)):
                    p = (z * shape[1] + y) * shape[2] + x
                    edges[n] = <uint32_t>(f * g.voxels + p)
                    key = <float>edge_cost(g, edges[n])
                    memcpy(&keys[n], &key, 4)
                    n += 1
    return n


cdef void radix_pass(uint32_t* edges, uint32_t* keys, uint32_t* edges2, uint32_t* keys2, int64_t n, int shift) noexcept nogil:
    cdef int64_t count[2048]
    cdef int64_t i, total = 0, c
    cdef uint32_t digit
    memset(count, 0, sizeof(count))
    for i in range(n):
        count[(keys[i] >> shift) & 2047] += 1
    for i in range(2048):
        c = count[i]
        count[i] = total
        total += c
    for i in range(n):
        digit = (keys[i] >> shift) & 2047
        edges2[count[digit]] = edges[i]
        keys2[count[digit]] = keys[i]
        count[digit] += 1


cdef void sort_runs(const Graph* g, uint32_t* edges, const uint32_t* keys, int64_t n) noexcept nogil:
    """Order each run of equal float32 keys by the exact float64 cost, ties in list order."""
    cdef int64_t start = 0, stop, i
    cdef bint ordered
    cdef vector[Edge] run
    cdef Edge edge
    while start < n:
        stop = start + 1
        while stop < n and keys[stop] == keys[start]:
            stop += 1
        if stop - start > 1 and keys[start] != 0:
            run.clear()
            ordered = True
            for i in range(start, stop):
                edge.cost, edge.id = edge_cost(g, edges[i]), edges[i]
                ordered = ordered and (i == start or run.back().cost <= edge.cost)
                run.push_back(edge)
            if not ordered:
                stable_sort(run.begin(), run.end())
                for i in range(start, stop):
                    edges[i] = run[i - start].id
        start = stop


cdef inline int root(int* parent, int p) noexcept nogil:
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


cdef void merge_cheap(const Graph* g, const uint32_t* edges, int64_t n, double k, int* parent, int* size, double* inner) noexcept nogil:
    """Pass 1: join two components whose edge is cheaper than both inner costs plus k over size (float32 thresholds, as published)."""
    cdef int64_t i, family, p
    cdef int a, b
    cdef double cost
    for i in range(n):
        family = edges[i] / g.voxels
        p = edges[i] - family * g.voxels
        a, b = root(parent, <int>p), root(parent, <int>(p + g.offset[family]))
        if a == b:
            continue
        cost = edge_cost(g, edges[i])
        if cost < <float>(inner[a] + k / size[a]) and cost < <float>(inner[b] + k / size[b]):
            if b < a:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            inner[a] = cost


cdef void merge_small(const Graph* g, const uint32_t* edges, int64_t n, int min_size, int* parent, int* size) noexcept nogil:
    """Pass 2: join every component below `min_size` over its cheapest edge."""
    cdef int64_t i, family, p
    cdef int a, b
    for i in range(n):
        family = edges[i] / g.voxels
        p = edges[i] - family * g.voxels
        a, b = root(parent, <int>p), root(parent, <int>(p + g.offset[family]))
        if a != b and (size[a] < min_size or size[b] < min_size):
            if b < a:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]


def segment(const double[:, :, ::1] volume, double k, int min_size, double z_ratio):
    """Labels (z, y, x) int32, 0..n-1 in the order of each component's first voxel; `z_ratio` = slice over in-plane spacing."""
    cdef int[3] shape = [<int>volume.shape[0], <int>volume.shape[1], <int>volume.shape[2]]
    cdef Graph g
    cdef int f, dz, across
    cdef int64_t i, n
    cdef double s2 = z_ratio * z_ratio
    g.value, g.voxels = &volume[0, 0, 0], <int64_t>shape[0] * shape[1] * shape[2]
    for f in range(13):
        dz, across = FAMILIES[f][0], abs(FAMILIES[f][1]) + abs(FAMILIES[f][2])
        g.offset[f] = (<int64_t>dz * shape[1] + FAMILIES[f][1]) * shape[2] + FAMILIES[f][2]
        g.weight[f] = (across + s2) / (across + 1) if dz else 1.0
    cdef uint32_t[::1] edges = np.empty(13 * g.voxels, np.uint32), keys = np.empty(13 * g.voxels, np.uint32)
    cdef uint32_t[::1] edges2 = np.empty(13 * g.voxels, np.uint32), keys2 = np.empty(13 * g.voxels, np.uint32)
    cdef int[::1] parent = np.arange(g.voxels, dtype=np.int32), size = np.ones(g.voxels, np.int32)
    cdef double[::1] inner = np.zeros(g.voxels)
    with nogil:
        n = list_edges(&g, shape, &edges[0], &keys[0])
        radix_pass(&edges[0], &keys[0], &edges2[0], &keys2[0], n, 0)
        radix_pass(&edges2[0], &keys2[0], &edges[0], &keys[0], n, 11)
        radix_pass(&edges[0], &keys[0], &edges2[0], &keys2[0], n, 22)
        sort_runs(&g, &edges2[0], &keys2[0], n)
        merge_cheap(&g, &edges2[0], n, k, &parent[0], &size[0], &inner[0])
        merge_small(&g, &edges2[0], n, min_size, &parent[0], &size[0])
    labels = np.empty((shape[0], shape[1], shape[2]), np.int32)
    cdef int[::1] flat = labels.reshape(-1)
    cdef int found = 0
    with nogil:
        for i in range(g.voxels):                 # the root of a component is its smallest index: seen before its members
            if parent[i] == i:
                flat[i] = found
                found += 1
            else:
                flat[i] = flat[root(&parent[0], <int>i)]
    return labels
