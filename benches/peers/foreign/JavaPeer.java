import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;

/**
 * Java's pools as a peer. The scenes, and how they are asked for, are those of src/scenes and src/serve.rs.
 */
public final class JavaPeer {
    /** Where a word goes that the compiler must not find to be of no use. */
    static volatile long sink;

    static ExecutorService pool;
    static String name;
    static int width;

    /** One thread's count, with room around it so that no other thread's is on its cache line. */
    @SuppressWarnings("serial")
    static final class Stripe extends AtomicLong {
        long p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, pa, pb, pc, pd;
    }

    static final List<Stripe> STRIPES = new ArrayList<>();

    static final ThreadLocal<Stripe> STRIPE = ThreadLocal.withInitial(() -> {
        Stripe stripe = new Stripe();
        synchronized (STRIPES) {
            STRIPES.add(stripe);
        }
        return stripe;
    });

    /** A task that captures three words and does next to nothing with them. */
    record Tick(long a, long b, long c) implements Runnable {
        @Override
        public void run() {
            tick(a, b, c);
        }
    }

    record Compute(long a, long b, long c) implements Callable<Long> {
        @Override
        public Long call() {
            return a ^ b ^ c;
        }
    }

    record Node(long below, long level, long number) implements Runnable {
        @Override
        public void run() {
            if (below > 0) {
                pool.execute(new Node(below - 1, level + 1, 2 * number));
                pool.execute(new Node(below - 1, level + 1, 2 * number + 1));
            }
            tick(below, level, number);
        }
    }

    record Work(long steps, long b, long c) implements Runnable {
        @Override
        public void run() {
            work(steps);
            tick(steps, b, c);
        }
    }

    static void tick(long a, long b, long c) {
        if ((a ^ b ^ c) == Long.MIN_VALUE) {
            sink = a; // Never, but the compiler cannot know.
        }
        Stripe stripe = STRIPE.get();
        stripe.setRelease(stripe.getPlain() + 1);
    }

    static long counted() {
        synchronized (STRIPES) {
            long sum = 0;
            for (Stripe stripe : STRIPES) {
                sum += stripe.getAcquire();
            }
            return sum;
        }
    }

    static void waitFor(long target) {
        while (counted() < target) {
            LockSupport.parkNanos(50_000);
        }
    }

    static ExecutorService start() {
        return name.equals("Java ForkJoin") ? new ForkJoinPool(width) : Executors.newFixedThreadPool(width);
    }

    static void end(ExecutorService ending) throws InterruptedException {
        ending.shutdown();
        if (!ending.awaitTermination(1, TimeUnit.HOURS)) {
            throw new IllegalStateException("the pool does not end");
        }
    }

    static void submitTicks(ExecutorService to, long tasks) {
        for (long n = 0; n < tasks; n++) {
            to.execute(new Tick(n, n + 1, n + 2));
        }
    }

    static double each(long start, long n) {
        return (double) (System.nanoTime() - start) / n;
    }

    static double burst(long tasks) {
        long target = counted() + tasks;
        long start = System.nanoTime();
        submitTicks(pool, tasks);
        waitFor(target);
        return each(start, tasks);
    }

    static double multi(long tasks) throws Exception {
        int producers = 4;
        long target = counted() + tasks / producers * producers;
        CyclicBarrier ready = new CyclicBarrier(producers);
        Callable<Long> producer = () -> {
            ready.await();
            long start = System.nanoTime();
            submitTicks(pool, tasks / producers);
            return start;
        };
        ExecutorService threads = Executors.newFixedThreadPool(producers);
        long first = Long.MAX_VALUE;
        for (Future<Long> start : threads.invokeAll(Collections.nCopies(producers, producer))) {
            first = Math.min(first, start.get());
        }
        waitFor(target);
        double each = each(first, tasks);
        end(threads);
        return each;
    }

    static double fanOut(long depth) {
        long nodes = (1L << (depth + 1)) - 1;
        long target = counted() + nodes;
        long start = System.nanoTime();
        pool.execute(new Node(depth, 0, 1));
        waitFor(target);
        return each(start, nodes);
    }

    static double roundTrip(long n) throws Exception {
        long start = System.nanoTime();
        sink = pool.submit(new Compute(n, n + 1, n + 2)).get();
        return System.nanoTime() - start;
    }

    static double[] hot(int samples) throws Exception {
        for (int n = 0; n < 10; n++) {
            roundTrip(n);
        }
        double[] figures = new double[samples];
        for (int n = 0; n < samples; n++) {
            figures[n] = roundTrip(n);
        }
        return figures;
    }

    static double[] cold(int samples) throws Exception {
        roundTrip(0);
        double[] figures = new double[samples];
        for (int n = 0; n < samples; n++) {
            LockSupport.parkNanos(1_000_000);
            figures[n] = roundTrip(n);
        }
        return figures;
    }

    static double spawnJoin(int tasks) throws Exception {
        long start = System.nanoTime();
        List<Future<Long>> handles = new ArrayList<>(tasks);
        for (long n = 0; n < tasks; n++) {
            handles.add(pool.submit(new Compute(n, n + 1, n + 2)));
        }
        long sum = 0;
        for (Future<Long> handle : handles) {
            sum += handle.get();
        }
        sink = sum;
        return each(start, tasks);
    }

    static long steps;

    /** How long 5 µs are is measured once Java has compiled the loop. */
    static void calibrate() {
        long trial = 100_000;
        long fastest = Long.MAX_VALUE;
        for (int i = 0; i < 40; i++) {
            long start = System.nanoTime();
            work(trial);
            fastest = Math.min(fastest, System.nanoTime() - start);
        }
        steps = Math.max(1, trial * 5_000 / fastest);
    }

    static void work(long steps) {
        long x = 0x9E3779B97F4A7C15L;
        for (long i = 0; i < steps; i++) {
            x ^= x << 13;
            x ^= x >>> 7;
            x ^= x << 17;
        }
        if (x == 0) {
            sink = x; // Never: zero is not on this chain.
        }
    }

    static double mixed(long tasks) {
        if (steps == 0) {
            calibrate();
        }
        long start = System.nanoTime();
        for (long n = 0; n < tasks; n++) {
            work(steps);
            tick(n, n + 1, n + 2);
        }
        double serial = System.nanoTime() - start;
        long target = counted() + tasks;
        start = System.nanoTime();
        for (long n = 0; n < tasks; n++) {
            pool.execute(new Work(steps, n, n));
        }
        waitFor(target);
        return serial / (System.nanoTime() - start);
    }

    static double create(long pools) throws Exception {
        long start = System.nanoTime();
        for (long n = 0; n < pools; n++) {
            ExecutorService created = start();
            sink = created.submit(new Compute(n, n + 1, n + 2)).get();
            end(created);
        }
        return each(start, pools);
    }

    static double[] drain(long tasks) throws Exception {
        ExecutorService drained = start();
        CountDownLatch arrived = new CountDownLatch(width);
        CountDownLatch gate = new CountDownLatch(1);
        for (int i = 0; i < width; i++) {
            drained.submit(() -> {
                arrived.countDown();
                gate.await();
                return null;
            });
        }
        arrived.await();
        long start = System.nanoTime();
        submitTicks(drained, tasks);
        long opened = System.nanoTime();
        gate.countDown();
        end(drained);
        return new double[] {each(opened, tasks), each(start, tasks)};
    }

    static double[] play(String scene, int number) throws Exception {
        return switch (scene) {
            case "burst" -> new double[] {burst(number)};
            case "multi" -> new double[] {multi(number)};
            case "fan-out" -> new double[] {fanOut(number)};
            case "hot" -> hot(number);
            case "cold" -> cold(number);
            case "spawn-join" -> new double[] {spawnJoin(number)};
            case "mixed" -> new double[] {mixed(number)};
            case "create" -> new double[] {create(number)};
            case "drain" -> drain(number);
            default -> new double[0];
        };
    }

    public static void main(String[] arguments) throws Exception {
        name = arguments[0];
        width = Integer.parseInt(arguments[1]);
        pool = start();
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            String[] request = line.split(" ");
            StringBuilder answer = new StringBuilder();
            for (double figure : play(request[0], Integer.parseInt(request[1]))) {
                answer.append(answer.isEmpty() ? "" : " ").append(String.format(Locale.ROOT, "%.3f", figure));
            }
            System.out.println(answer.isEmpty() ? "-" : answer);
        }
        System.exit(0);
    }
}
