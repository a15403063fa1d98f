# distutils: language = c++
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Compiled core of the 3D Felzenszwalb supervoxels; the public function is `supervoxels.felzenszwalb_3d`.

Edges are numbered `family * voxels + voxel`; the 13 families and their order are those of the published program, because
that order breaks the ties between edges of equal cost. They are never all listed:

- Edges of cost 0 join in any order, so they are joined in the order of the voxels, unsorted.
- The others come in bands of rising cost. An edge is listed only if its ends are still in different components and, in the
  second pass, not both of these are large enough already: neither can change any more. Most of the edges drop out here.
- Within a band they are sorted by a float32 radix sort and then exactly, in float64, inside each run of equal keys.
- In the first pass no edge above k * (1 + ln voxels) can join anything: the inner cost of a component of n voxels is below
  k * (1 + 1/2 + ... + 1/(n-1)), since each join adds at most k over the size.
"""
import numpy as np
from libc.math cimport log, sqrt
from libc.stdint cimport uint32_t, int64_t
from libc.stdlib cimport free, realloc
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
    uint32_t voxels
    int shape[3]
    int64_t offset[13]
    double weight[13]


cdef struct Forest:
    int* parent                # a root is the smallest voxel of its component
    int* size                  # of roots
    double* inner              # of roots: the cost of their last join
    int* label                 # as of the last `relabel`: root of each voxel, negative where the component is large enough


cdef struct List:
    uint32_t* id
    uint32_t* key              # the bits of a non-negative float32 sort like the number
    int64_t n
    int64_t room


cdef inline double edge_cost(const Graph* g, uint32_t edge) noexcept nogil:
    cdef uint32_t family = edge / g.voxels
    cdef uint32_t p = edge - family * g.voxels
    cdef double d = g.value[p + g.offset[family]] - g.value[p]
    return sqrt(g.weight[family] * (d * d))


cdef inline int root(int* parent, int p) noexcept nogil:
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


cdef inline void join(Forest* f, int a, int b) noexcept nogil:
    if b < a:
        a, b = b, a
    f.parent[b] = a
    f.size[a] += f.size[b]


cdef void join_equal(const Graph* g, Forest* f) noexcept nogil:
    """Join all neighbours of equal value."""
    cdef int64_t z, y, x, p, q
    cdef int e, dz, dy, dx, a, b
    for z in range(g.shape[0]):
        for e in range(13):
            dz, dy, dx = FAMILIES[e][0], FAMILIES[e][1], FAMILIES[e][2]
            if z + dz >= g.shape[0]:
                continue
            for y in range(1 if dy < 0 else 0, g.shape[1] - (1 if dy > 0 else 0)):
                for x in range(1 if dx < 0 else 0, g.shape[2] - (1 if dx > 0 else 0)):
                    p = (z * g.shape[1] + y) * g.shape[2] + x
                    q = p + g.offset[e]
                    if g.value[p] == g.value[q] and f.parent[p] != f.parent[q]:
                        a, b = root(f.parent, <int>p), root(f.parent, <int>q)
                        if a != b:
                            join(f, a, b)


cdef void relabel(const Graph* g, Forest* f, int enough) noexcept nogil:
    """Every voxel's root; marked negative where the component has `enough` voxels (0: never)."""
    cdef int64_t p
    cdef int r
    for p in range(g.voxels):
        r = f.parent[f.parent[p]]                    # smaller voxels point at their roots already
        f.parent[p] = r
        f.label[p] = r | <int>0x80000000 if enough and f.size[r] >= enough else r


cdef bint list_band(const Graph* g, const Forest* f, double low, double high, List* out) noexcept nogil:
    """List, in published order, the edges of cost low <= cost < high that may still join something; False: no memory."""
    cdef int64_t z, y, x, p, start, stop, n = 0, offset
    cdef int e, dz, dy, dx, a, b
    cdef double cost, d, weight
    cdef float key
    cdef uint32_t base
    for e in range(13):
        dz, dy, dx = FAMILIES[e][0], FAMILIES[e][1], FAMILIES[e][2]
        weight, offset, base = g.weight[e], g.offset[e], <uint32_t>e * g.voxels
        for z in range(0, g.shape[0] - dz):
            for y in range(1 if dy < 0 else 0, g.shape[1] - (1 if dy > 0 else 0)):
                if n + g.shape[2] > out.room and not make_room(out, n + g.shape[2]):
                    return False
                start = (z * g.shape[1] + y) * g.shape[2] + (1 if dx < 0 else 0)
                stop = (z * g.shape[1] + y + 1) * g.shape[2] - (1 if dx > 0 else 0)
                for p in range(start, stop):
                    d = g.value[p + offset] - g.value[p]
                    cost = sqrt(weight * (d * d))
                    a, b = f.label[p], f.label[p + offset]
                    key = <float>cost
                    out.id[n] = base + <uint32_t>p
                    memcpy(&out.key[n], &key, 4)
                    n += (cost >= low) & (cost < high) & (a != b) & ((a & b) >= 0)
    out.n = n
    return True


cdef bint make_room(List* out, int64_t wanted) noexcept nogil:
    cdef int64_t room = wanted + wanted / 2
    cdef void* id = realloc(out.id, room * 4)
    if id == NULL:
        return False
    out.id = <uint32_t*>id
    cdef void* key = realloc(out.key, room * 4)
    if key == NULL:
        return False
    out.key, out.room = <uint32_t*>key, room
    return True


cdef void radix_pass(const List* source, List* target, int shift) noexcept nogil:
    cdef int64_t count[2048]
    cdef int64_t i, total = 0, c
    cdef uint32_t digit
    memset(count, 0, sizeof(count))
    for i in range(source.n):
        count[(source.key[i] >> shift) & 2047] += 1
    for i in range(2048):
        c = count[i]
        count[i] = total
        total += c
    for i in range(source.n):
        digit = (source.key[i] >> shift) & 2047
        target.id[count[digit]] = source.id[i]
        target.key[count[digit]] = source.key[i]
        count[digit] += 1
    target.n = source.n


cdef bint sort_list(const Graph* g, List* edges, List* spare) noexcept nogil:
    """Sort by exact cost, ties in list order; the result is in `spare`. False: no memory."""
    cdef int64_t start = 0, stop, i
    cdef double before, cost
    cdef bint ordered
    cdef vector[Edge] run
    cdef Edge edge
    if (edges.n > spare.room and not make_room(spare, edges.n)) or (spare.room > edges.room and not make_room(edges, edges.n)):
        return False
    radix_pass(edges, spare, 0)
    radix_pass(spare, edges, 11)
    radix_pass(edges, spare, 22)
    while start < spare.n:
        stop = start + 1
        while stop < spare.n and spare.key[stop] == spare.key[start]:
            stop += 1
        ordered, before = True, -1.0
        if stop - start > 1:
            for i in range(start, stop):
                cost = edge_cost(g, spare.id[i])
                if cost < before:
                    ordered = False
                    break
                before = cost
        if not ordered:
            run.clear()
            for i in range(start, stop):
                edge.cost, edge.id = edge_cost(g, spare.id[i]), spare.id[i]
                run.push_back(edge)
            stable_sort(run.begin(), run.end())
            for i in range(start, stop):
                spare.id[i] = run[i - start].id
        start = stop
    return True


cdef void merge_cheap(const Graph* g, const uint32_t* edges, int64_t n, double k, Forest* f) noexcept nogil:
    """Pass 1: join two components whose edge is cheaper than both inner costs plus k over size (float32 thresholds, as published)."""
    cdef int64_t i
    cdef uint32_t family, p
    cdef int a, b
    cdef double cost
    for i in range(n):
        family = edges[i] / g.voxels
        p = edges[i] - family * g.voxels
        a, b = root(f.parent, <int>p), root(f.parent, <int>(p + g.offset[family]))
        if a == b:
            continue
        cost = edge_cost(g, edges[i])
        if cost < <float>(f.inner[a] + k / f.size[a]) and cost < <float>(f.inner[b] + k / f.size[b]):
            join(f, a, b)
            f.inner[a if a < b else b] = cost


cdef void merge_small(const Graph* g, const uint32_t* edges, int64_t n, int min_size, Forest* f) noexcept nogil:
    """Pass 2: join every component below `min_size` over its cheapest edge."""
    cdef int64_t i
    cdef uint32_t family, p
    cdef int a, b
    for i in range(n):
        family = edges[i] / g.voxels
        p = edges[i] - family * g.voxels
        a, b = root(f.parent, <int>p), root(f.parent, <int>(p + g.offset[family]))
        if a != b and (f.size[a] < min_size or f.size[b] < min_size):
            join(f, a, b)


cdef bint run_bands(const Graph* g, Forest* f, double k, int min_size, const double* bands, int n_bands) noexcept nogil:
    """Both passes, band after band; False: no memory."""
    cdef List edges, spare
    cdef int i
    cdef double highest = 1.001 * k * (1 + log(<double>g.voxels)) if k > 0 else 0
    cdef bint good = True
    memset(&edges, 0, sizeof(List))
    memset(&spare, 0, sizeof(List))
    if <float>(k / g.voxels) > 0:
        join_equal(g, f)
    for i in range(n_bands - 1):
        if good and bands[i] < highest:
            relabel(g, f, 0)
            good = list_band(g, f, bands[i], min(bands[i + 1], highest), &edges) and sort_list(g, &edges, &spare)
            if good:
                merge_cheap(g, spare.id, spare.n, k, f)
    for i in range(n_bands - 1):
        if good:
            relabel(g, f, min_size)
            good = list_band(g, f, bands[i], bands[i + 1], &edges) and sort_list(g, &edges, &spare)
            if good:
                merge_small(g, spare.id, spare.n, min_size, f)
    free(edges.id)
    free(edges.key)
    free(spare.id)
    free(spare.key)
    return good


cdef int64_t list_all(const Graph* g, uint32_t* id, double* cost) noexcept nogil:
    """All edges in published order; returns their number. Without arrays (NULL) they are only counted."""
    cdef int64_t n = 0, z, y, x
    cdef int e, dz, dy, dx
    for e in range(13):
        dz, dy, dx = FAMILIES[e][0], FAMILIES[e][1], FAMILIES[e][2]
        for z in range(0, g.shape[0] - dz):
            for y in range(1 if dy < 0 else 0, g.shape[1] - (1 if dy > 0 else 0)):
                for x in range(1 if dx < 0 else 0, g.shape[2] - (1 if dx > 0 else 0)):
                    if id != NULL:
                        id[n] = <uint32_t>e * g.voxels + <uint32_t>((z * g.shape[1] + y) * g.shape[2] + x)
                        cost[n] = edge_cost(g, id[n])
                    n += 1
    return n


cdef void heap_sort(const double* v, uint32_t* first, int64_t n) noexcept nogil:
    """NumPy's argument heap sort."""
    cdef uint32_t* a = first - 1
    cdef uint32_t held
    cdef int64_t i, j, l = n >> 1
    while n > 1:
        if l > 0:
            held = a[l]
            i, j = l, l << 1
            l -= 1
        else:
            held = a[n]
            a[n] = a[1]
            n -= 1
            i, j = 1, 2
        while j <= n:
            if j < n and v[a[j]] < v[a[j + 1]]:
                j += 1
            if not v[held] < v[a[j]]:
                break
            a[i] = a[j]
            i = j
            j += j
        a[i] = held


cdef inline void swap(uint32_t* a, uint32_t* b) noexcept nogil:
    cdef uint32_t held = a[0]
    a[0] = b[0]
    b[0] = held


cdef void quick_sort(const double* v, uint32_t* order, int64_t n) noexcept nogil:
    """NumPy's scalar argument quicksort: median of three, insertion sort up to 16, heap sort below twice log2 n levels."""
    cdef uint32_t* left = order
    cdef uint32_t* right = order + n - 1
    cdef uint32_t* stack[256]
    cdef int depths[128]
    cdef int top = 0, levels = 0
    cdef uint32_t* i
    cdef uint32_t* j
    cdef uint32_t* middle
    cdef uint32_t held
    cdef double pivot
    while (n >> levels) > 1:
        levels += 1
    levels *= 2
    while True:
        if levels < 0:
            heap_sort(v, left, right - left + 1)
        else:
            while right - left > 16:
                middle = left + ((right - left) >> 1)
                if v[middle[0]] < v[left[0]]:
                    swap(middle, left)
                if v[right[0]] < v[middle[0]]:
                    swap(right, middle)
                if v[middle[0]] < v[left[0]]:
                    swap(middle, left)
                pivot = v[middle[0]]
                i, j = left, right - 1
                swap(middle, j)
                while True:
                    i += 1
                    while v[i[0]] < pivot:
                        i += 1
                    j -= 1
                    while pivot < v[j[0]]:
                        j -= 1
                    if i >= j:
                        break
                    swap(i, j)
                swap(i, right - 1)
                if i - left < right - i:
                    stack[2 * top], stack[2 * top + 1] = i + 1, right
                    right = i - 1
                else:
                    stack[2 * top], stack[2 * top + 1] = left, i - 1
                    left = i + 1
                levels -= 1
                depths[top] = levels
                top += 1
            i = left + 1
            while i <= right:
                held, j = i[0], i
                pivot = v[held]
                while j > left and pivot < v[(j - 1)[0]]:
                    j[0] = (j - 1)[0]
                    j -= 1
                j[0] = held
                i += 1
        if top == 0:
            break
        top -= 1
        left, right, levels = stack[2 * top], stack[2 * top + 1], depths[top]


BANDS = (0.15, 0.3, 0.6, 0.9)


cdef list_bands(const double[:, :, ::1] volume):
    """Limits of the bands, from 0 up to infinity, at quantiles of the edges within a slice."""
    array = np.asarray(volume)
    steps = np.abs(np.diff(array[:, ::5], axis=2)[:, :, ::7]).ravel()
    limits = np.quantile(steps, BANDS) if steps.size else []
    return np.array([0.0, *sorted({float(v) for v in limits if v > 0}), np.inf])


def segment(const double[:, :, ::1] volume, double k, int min_size, double z_ratio, bint introsort=False):
    """Labels (z, y, x) int32, 0..n-1 in the order of each component's first voxel; `z_ratio` = slice over in-plane spacing."""
    cdef Graph g
    cdef Forest f
    cdef int e, dz, across, found = 0
    cdef int64_t i, n
    cdef double s2 = z_ratio * z_ratio
    cdef bint good = True
    if volume.size == 0 or 13 * volume.size >= 2**32:
        raise ValueError(f"A volume of {volume.size} voxels; expected 1 to {2**32 // 13}")
    g.value, g.voxels = &volume[0, 0, 0], <uint32_t>volume.size
    for e in range(3):
        g.shape[e] = <int>volume.shape[e]
    for e in range(13):
        dz, across = FAMILIES[e][0], abs(FAMILIES[e][1]) + abs(FAMILIES[e][2])
        g.offset[e] = (<int64_t>dz * g.shape[1] + FAMILIES[e][1]) * g.shape[2] + FAMILIES[e][2]
        g.weight[e] = (across + s2) / (across + 1) if dz else 1.0
    cdef int[::1] parent = np.arange(g.voxels, dtype=np.int32), size = np.ones(g.voxels, np.int32)
    cdef int[::1] label = np.empty(g.voxels, np.int32)
    cdef double[::1] inner = np.zeros(g.voxels), bands = list_bands(volume), costs
    cdef uint32_t[::1] ids, order
    f.parent, f.size, f.inner, f.label = &parent[0], &size[0], &inner[0], &label[0]
    if introsort and list_all(&g, NULL, NULL):
        n = list_all(&g, NULL, NULL)
        ids, costs, order = np.empty(n, np.uint32), np.empty(n), np.arange(n, dtype=np.uint32)
        with nogil:
            list_all(&g, &ids[0], &costs[0])
            quick_sort(&costs[0], &order[0], n)
            for i in range(n):
                order[i] = ids[order[i]]
            merge_cheap(&g, &order[0], n, k, &f)
            merge_small(&g, &order[0], n, min_size, &f)
    elif not introsort:
        with nogil:
            good = run_bands(&g, &f, k, min_size, &bands[0], <int>bands.shape[0])
    if not good:
        raise MemoryError(f"No memory for the edges of {g.voxels} voxels")
    labels = np.empty((g.shape[0], g.shape[1], g.shape[2]), np.int32)
    cdef int[::1] flat = labels.reshape(-1)
    with nogil:
        for i in range(g.voxels):                 # the root of a component is its smallest index: seen before its members
            if parent[i] == i:
                flat[i] = found
                found += 1
            else:
                flat[i] = flat[root(&parent[0], <int>i)]
    return labels
