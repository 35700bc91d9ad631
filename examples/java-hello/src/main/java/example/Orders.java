package example;

import com.aliyun.fc.runtime.Context;
import com.aliyun.fc.runtime.PojoRequestHandler;
import com.aliyun.fc.runtime.PreStopHandler;
import java.util.ArrayList;
import java.util.List;

/** Adds up orders: the event's JSON comes as objects, and an object becomes the answer's. */
public class Orders implements PojoRequestHandler<Orders.Order, Orders.Total>, PreStopHandler {
    private int served;

    @Override
    public Total handleRequest(Order order, Context context) {
        served++;
        Total total = new Total();
        total.setCustomer(order.getCustomer());
        for (Line line : order.getLines()) {
            total.setSum(total.getSum() + line.getPrice() * line.getCount());
        }
        return total;
    }

    @Override
    public void preStop(Context context) {
        context.getLogger().info("stopping after " + served);
    }

    /** What somebody ordered. */
    public static class Order {
        private String customer;
        private List<Line> lines = new ArrayList<>();

        public String getCustomer() {
            return customer;
        }

        public void setCustomer(String customer) {
            this.customer = customer;
        }

        public List<Line> getLines() {
            return lines;
        }

        public void setLines(List<Line> lines) {
            this.lines = lines;
        }
    }

    /** A part of an order. */
    public static class Line {
        private long price;
        private int count;

        public long getPrice() {
            return price;
        }

        public void setPrice(long price) {
            this.price = price;
        }

        public int getCount() {
            return count;
        }

        public void setCount(int count) {
            this.count = count;
        }
    }

    /** What it comes to. */
    public static class Total {
        private String customer;
        private long sum;

        public String getCustomer() {
            return customer;
        }

        public void setCustomer(String customer) {
            this.customer = customer;
        }

        public long getSum() {
            return sum;
        }

        public void setSum(long sum) {
            this.sum = sum;
        }
    }
}
